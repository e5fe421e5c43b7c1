#!/bin/bash
# Every target for FUZZ_S seconds (20), or those named. New findings go to regressions/<target>/ and fail the run.
# libFuzzer is linked directly and its counters are switched on by flags of the stable compiler, so no tool beyond
# cargo and a C++ compiler is needed. `cargo fuzz run <target>` (RUSTC_BOOTSTRAP=1) works on the same files.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${FUZZ_S:-20}
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$(cd .. && pwd)/target/fuzz}
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
# --target keeps the flags away from build scripts.
nice cargo build --release --quiet --locked --target "$host"

if [ $# -gt 0 ]; then targets=("$@"); else mapfile -t targets < <(basename -s .rs fuzz_targets/*.rs); fi
found=0
for target in "${targets[@]}"; do
  grown=$CARGO_TARGET_DIR/corpus/$target # what the fuzzer learns stays out of the tree
  mkdir -p "$grown" "corpus/$target" "regressions/$target"
  log=$CARGO_TARGET_DIR/$target.log
  # S6: no allocation above 64 KiB is a rule for parsers; the harness itself owns caches, hence 64 MiB here.
  if nice "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -max_len=4096 -timeout=2 \
      -rss_limit_mb=1024 -malloc_limit_mb=64 -print_final_stats=1 -artifact_prefix="regressions/$target/" \
      "$grown" "corpus/$target" "regressions/$target" >"$log" 2>&1; then
    awk -v t="$target" '/stat::number_of_executed_units/ {n=$2} /cov:/ {for (i=1;i<NF;i++) if ($i=="cov:") c=$(i+1)}
      END {printf "fuzz %-6s %9d inputs, %5d edges, no finding\n", t, n, c}' "$log"
  else
    found=1
    echo "fuzz $target: FINDING, kept in engine/fuzz/regressions/$target; from $log:"
    grep -aE "panicked|ERROR|Test unit" -A2 "$log" | head -20
  fi
  rmdir --ignore-fail-on-non-empty "corpus/$target" "regressions/$target"
done
exit $found
