"""The XMPP gateway: an external component (XEP-0114) with a callable focus per conference and puppets in MUCs.

Reading order: `gateway`, `inbound`, `calls`, `call`, `rooms`, `puppets`; pure: `jingle`, `jmi`, `muc`, `disco`,
`names`, `guard`, `stanza`. Supported sections: docs/gateways/xmpp.md.
"""

from bridge.gateway import Context, Gateway
from bridge.gateways.xmpp.gateway import XmppGateway

__all__ = ["create"]


def create(context: Context) -> Gateway:
    """As `bridge.gateway.Gateway` demands. Raises `Refused` for a configuration that must not start."""
    return XmppGateway(context)
