-- Prosody for docker-compose.yml's profile `xmpp`. Certificates: deploy/certs/<XMPP_DOMAIN>.crt and .key.
data_path = "/var/lib/prosody"
log = { info = "*console" }
certificates = "/etc/prosody/certs"
-- The component's secret crosses in the clear, so it stays within the network namespace shared with parley.
component_interfaces = { "127.0.0.1" }
component_ports = { 5347 }
c2s_require_encryption = true
authentication = "internal_hashed"
allow_registration = false
modules_enabled = {
  "roster", "saslauth", "tls", "dialback", "disco", "carbons", "pep", "blocklist", "vcard4", "vcard_legacy", "ping",
  "smacks", "mam", "bookmarks", "external_services",
}
-- XEP-0215: clients get credentials of the TURN server (coturn in docker-compose.yml).
external_services = {
  { type = "turn", transport = "udp", host = ENV_TURN_HOST, port = 3478, secret = ENV_TURN_SECRET, ttl = 300 },
}

VirtualHost(ENV_XMPP_DOMAIN)

Component("muc." .. ENV_XMPP_DOMAIN, "muc")
  modules_enabled = { "muc_mam" }

Component("conf." .. ENV_XMPP_DOMAIN)
  component_secret = ENV_XMPP_SECRET
