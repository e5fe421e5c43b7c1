//! What callers ask of the data-plane thread.

use parley_core::id::{GroupId, Micros, PublicationId, SubscriptionId, TransportId};
use parley_core::media::{ReceiveStream, SendStream};
use parley_core::plane::{Error, IngressLimit, Plane};
use parley_core::srtp::Profile;
use parley_core::wire::Output;

/// One method of `sfu._engine.Engine` each, in the order given.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the fields are the plane's arguments
pub enum Command {
    /// `Plane::open_transport`
    OpenTransport {
        id: TransportId,
        ufrag: Vec<u8>,
        password: Vec<u8>,
        offered_by_us: bool,
    },
    /// `Plane::set_remote`
    SetRemote {
        id: TransportId,
        ufrag: Vec<u8>,
        password: Vec<u8>,
    },
    /// `Plane::restart_ice`
    RestartIce {
        id: TransportId,
        ufrag: Vec<u8>,
        password: Vec<u8>,
    },
    /// `Plane::send_datagram`
    SendDatagram { id: TransportId, datagram: Vec<u8> },
    /// `Plane::set_keys`
    SetKeys {
        id: TransportId,
        profile: Profile,
        material: Vec<u8>,
        is_client: bool,
    },
    /// `Plane::set_ingress_limit`
    SetIngressLimit {
        id: TransportId,
        limit: IngressLimit,
    },
    /// `Plane::set_budget`
    SetBudget { id: TransportId, bits_per_s: u64 },
    /// `Plane::close_transport`
    CloseTransport { id: TransportId },
    /// `Plane::publish`
    Publish {
        id: PublicationId,
        transport: TransportId,
        group: GroupId,
        stream: Box<ReceiveStream>,
    },
    /// `Plane::update_publication`
    UpdatePublication {
        id: PublicationId,
        stream: Box<ReceiveStream>,
    },
    /// `Plane::unpublish`
    Unpublish { id: PublicationId },
    /// `Plane::set_gate`
    SetGate { id: PublicationId, open: bool },
    /// `Plane::subscribe`
    Subscribe {
        id: SubscriptionId,
        transport: TransportId,
        stream: Box<SendStream>,
    },
    /// `Plane::set_source`
    SetSource {
        id: SubscriptionId,
        source: Option<PublicationId>,
    },
    /// `Plane::set_layer`
    SetLayer {
        id: SubscriptionId,
        max_layer: u8,
        paused: bool,
    },
    /// `Plane::set_frame_rate`
    SetFrameRate { id: SubscriptionId, max_fps: u8 },
    /// `Plane::set_priority`
    SetPriority { id: SubscriptionId, priority: u8 },
    /// `Plane::set_loudest`; concerns every shard.
    SetLoudest {
        group: GroupId,
        places: u8,
        dominant: Option<PublicationId>,
    },
    /// `Plane::unsubscribe`
    Unsubscribe { id: SubscriptionId },
    /// `Plane::fail_deliberately`
    FailDeliberately { id: TransportId },
}

impl Command {
    /// The handle it is about, which names the shard that carries it out; None: every shard does.
    pub(crate) fn about(&self) -> Option<u64> {
        Some(match self {
            Self::OpenTransport { id, .. }
            | Self::SetRemote { id, .. }
            | Self::RestartIce { id, .. }
            | Self::SendDatagram { id, .. }
            | Self::SetKeys { id, .. }
            | Self::SetIngressLimit { id, .. }
            | Self::SetBudget { id, .. }
            | Self::CloseTransport { id }
            | Self::FailDeliberately { id } => id.0,
            Self::Publish { id, .. }
            | Self::UpdatePublication { id, .. }
            | Self::Unpublish { id }
            | Self::SetGate { id, .. } => id.0,
            Self::Subscribe { id, .. }
            | Self::SetSource { id, .. }
            | Self::SetLayer { id, .. }
            | Self::SetFrameRate { id, .. }
            | Self::SetPriority { id, .. }
            | Self::Unsubscribe { id } => id.0,
            Self::SetLoudest { .. } => return None,
        })
    }

    /// Do it.
    pub(crate) fn run(
        self,
        plane: &mut Plane,
        now: Micros,
        out: &mut impl Output,
    ) -> Result<(), Error> {
        match self {
            Self::OpenTransport {
                id,
                ufrag,
                password,
                offered_by_us,
            } => {
                return plane.open_transport(id, &ufrag, &password, offered_by_us, now);
            }
            Self::SetRemote {
                id,
                ufrag,
                password,
            } => {
                plane.set_remote(id, &ufrag, &password, now, out);
            }
            Self::RestartIce {
                id,
                ufrag,
                password,
            } => {
                return plane.restart_ice(id, &ufrag, &password, now);
            }
            Self::SendDatagram { id, datagram } => plane.send_datagram(id, &datagram, out),
            Self::SetKeys {
                id,
                profile,
                material,
                is_client,
            } => {
                plane.set_keys(id, profile, &material, is_client);
            }
            Self::SetIngressLimit { id, limit } => plane.set_ingress_limit(id, limit),
            Self::SetBudget { id, bits_per_s } => plane.set_budget(id, bits_per_s),
            Self::CloseTransport { id } => plane.close_transport(id, now, out),
            Self::Publish {
                id,
                transport,
                group,
                stream,
            } => {
                return plane.publish(id, transport, group, *stream);
            }
            Self::UpdatePublication { id, stream } => plane.update_publication(id, *stream),
            Self::Unpublish { id } => plane.unpublish(id, now, out),
            Self::SetGate { id, open } => plane.set_gate(id, open),
            Self::Subscribe {
                id,
                transport,
                stream,
            } => {
                return plane.subscribe(id, transport, *stream);
            }
            Self::SetSource { id, source } => plane.set_source(id, source, now, out),
            Self::SetLayer {
                id,
                max_layer,
                paused,
            } => {
                plane.set_layer(id, max_layer, paused, now, out);
            }
            Self::SetFrameRate { id, max_fps } => plane.set_frame_rate(id, max_fps, now, out),
            Self::SetPriority { id, priority } => plane.set_priority(id, priority),
            Self::SetLoudest {
                group,
                places,
                dominant,
            } => plane.set_loudest(group, places, dominant),
            Self::Unsubscribe { id } => plane.unsubscribe(id, now, out),
            Self::FailDeliberately { id } => plane.fail_deliberately(id),
        }
        Ok(())
    }
}
