#!/usr/bin/env bash
# Installs the Debian packages of a list (packages.txt) when root; otherwise prints the one line to run.
set -eu
cd "$(dirname "$0")/.."
list=${1:-packages.txt}
missing=()
while read -r name; do
  case "$name" in ''|'#'*) continue ;; esac
  dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
done < "$list"
[ ${#missing[@]} -eq 0 ] && exit 0
line="apt-get install -y --no-install-recommends ${missing[*]}"
if [ "$(id -u)" = 0 ]; then
  echo "== Debian packages: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $line -qq >/dev/null
else
  echo "Please run once as root, then try again:"
  echo "  sudo apt-get update && sudo $line"
  exit 1
fi
