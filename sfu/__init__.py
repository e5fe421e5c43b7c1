"""Control of media: sessions, negotiation, DTLS, SCTP, layer policy, around the compiled engine.

Imports nothing here, so that the control plane (`bridge`) can use `sfu.description`, `sfu.sdp`,
`sfu.client` and `sfu.protocol` without loading aiortc or the engine.
"""
