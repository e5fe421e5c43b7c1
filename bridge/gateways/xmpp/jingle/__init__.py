"""Jingle as values: XEP-0166, 0167, 0176, 0320, 0338, 0339, 0293, 0294.

`parse` and `print` are inverse; `describe` maps to `sfu.description`; `session` is the state table. All pure.
Not here: stanza transport and answering (`bridge.gateways.xmpp.calls`), Jingle Message Initiation (`jmi`).
"""
