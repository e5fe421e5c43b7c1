//! `Engine`: one method per command, and the events and counters as Python values.

use std::net::IpAddr;

use parley_core::id::{GroupId, PublicationId, SubscriptionId, TransportId};
use parley_core::media;
use parley_core::plane::IngressLimit;
use parley_core::shard::home_of;
use parley_core::srtp::Profile;
use parley_core::wire::{Event, SLOT_BYTES};
use parley_io::Command;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::report::report_to_python;
use crate::streams::{check_mid, codecs, Codec, Extensions, ReceiveStream};

/// Events of one `poll`.
const POLL_EVENTS: usize = 4_096;
/// RFC 8839 section 5.4: ufrag 4..256 characters, password 22..256.
const UFRAG: std::ops::RangeInclusive<usize> = 4..=256;
const PASSWORD: std::ops::RangeInclusive<usize> = 22..=256;
/// RFC 3550 section 6.5: one octet of length.
const MAX_CNAME_BYTES: usize = 255;

/// One data plane: a UDP port per listen address, one thread or several.
#[pyclass(frozen, module = "sfu._engine")]
pub struct Engine(parley_io::Engine);

fn credentials(ufrag: String, pwd: String) -> PyResult<(Vec<u8>, Vec<u8>)> {
    let is_ice = |text: &str| {
        text.bytes().all(|c| {
            c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/' | b'-' | b'_' | b'=' | b'#')
        })
    };
    if !UFRAG.contains(&ufrag.len()) || !PASSWORD.contains(&pwd.len()) {
        return Err(PyValueError::new_err(
            "ufrag is 4..256 characters, pwd 22..256",
        ));
    }
    if !is_ice(&ufrag) || !is_ice(&pwd) {
        return Err(PyValueError::new_err("ufrag and pwd are ice-chars"));
    }
    Ok((ufrag.into_bytes(), pwd.into_bytes()))
}

impl Engine {
    fn submit(&self, py: Python<'_>, command: Command) -> PyResult<()> {
        let full = |_| PyRuntimeError::new_err("the data plane does not take commands any more");
        py.detach(|| self.0.submit(command)).map_err(full)
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*, listen, port, tcp = true, dscp = true, shards = 1))]
    fn new(
        py: Python<'_>,
        listen: Vec<String>,
        port: u16,
        tcp: bool,
        dscp: bool,
        shards: usize,
    ) -> PyResult<Self> {
        if !(1..=parley_io::MAX_LISTEN).contains(&listen.len()) {
            let most = parley_io::MAX_LISTEN;
            return Err(PyValueError::new_err(format!(
                "1 to {most} listen addresses"
            )));
        }
        let parse = |text: &String| {
            let why = |_| PyValueError::new_err(format!("not an address: {text}"));
            text.parse::<IpAddr>().map_err(why)
        };
        let listen = listen.iter().map(parse).collect::<PyResult<Vec<_>>>()?;
        let options = parley_io::Options { tcp, dscp, shards };
        let engine = py.detach(|| parley_io::Engine::start(&listen, port, options))?;
        Ok(Self(engine))
    }

    #[getter]
    fn port(&self) -> u16 {
        self.0.port()
    }

    #[getter]
    fn shards(&self) -> usize {
        self.0.shards()
    }

    fn shard_of(&self, ufrag: &str) -> u8 {
        self.0.shard_of(ufrag.as_bytes())
    }

    #[getter]
    fn event_fd(&self, py: Python<'_>) -> i32 {
        py.detach(|| self.0.event_fd()).unwrap_or(-1)
    }

    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let (events, lost) = py.detach(|| self.0.poll(POLL_EVENTS));
        let list = PyList::empty(py);
        for event in events {
            list.append(event_to_python(py, event)?)?;
        }
        if lost > 0 {
            list.append(("overflow", 0, lost))?;
        }
        Ok(list)
    }

    #[pyo3(signature = (*, local_ufrag, local_pwd, offered_by_us))]
    fn open_transport(
        &self,
        py: Python<'_>,
        local_ufrag: String,
        local_pwd: String,
        offered_by_us: bool,
    ) -> PyResult<u64> {
        let (ufrag, password) = credentials(local_ufrag, local_pwd)?;
        let handle = self.0.handle(self.0.shard_of(&ufrag));
        let id = TransportId(handle);
        self.submit(
            py,
            Command::OpenTransport {
                id,
                ufrag,
                password,
                offered_by_us,
            },
        )?;
        Ok(handle)
    }

    #[pyo3(signature = (transport, *, ufrag, pwd))]
    fn set_remote(
        &self,
        py: Python<'_>,
        transport: u64,
        ufrag: String,
        pwd: String,
    ) -> PyResult<()> {
        let (ufrag, password) = credentials(ufrag, pwd)?;
        self.submit(
            py,
            Command::SetRemote {
                id: TransportId(transport),
                ufrag,
                password,
            },
        )
    }

    #[pyo3(signature = (transport, *, local_ufrag, local_pwd))]
    fn restart_ice(
        &self,
        py: Python<'_>,
        transport: u64,
        local_ufrag: String,
        local_pwd: String,
    ) -> PyResult<()> {
        let (ufrag, password) = credentials(local_ufrag, local_pwd)?;
        let home = home_of(transport);
        if usize::from(home) < self.0.shards() && self.0.shard_of(&ufrag) != home {
            return Err(PyValueError::new_err(
                "the ufrag belongs to another shard than the transport",
            ));
        }
        self.submit(
            py,
            Command::RestartIce {
                id: TransportId(transport),
                ufrag,
                password,
            },
        )
    }

    fn send_datagram(&self, py: Python<'_>, transport: u64, datagram: &[u8]) -> PyResult<()> {
        if datagram.is_empty() || datagram.len() > SLOT_BYTES {
            return Err(PyValueError::new_err("a datagram has 1..1536 bytes"));
        }
        let id = TransportId(transport);
        self.submit(
            py,
            Command::SendDatagram {
                id,
                datagram: datagram.to_vec(),
            },
        )
    }

    #[pyo3(signature = (transport, *, profile, material, is_client))]
    fn set_keys(
        &self,
        py: Python<'_>,
        transport: u64,
        profile: u16,
        material: &[u8],
        is_client: bool,
    ) -> PyResult<()> {
        let unknown = || PyValueError::new_err("profile must be 1, 7 or 8");
        let profile = Profile::from_number(profile).ok_or_else(unknown)?;
        if material.len() != profile.material_bytes() {
            let needed = profile.material_bytes();
            return Err(PyValueError::new_err(format!(
                "material must have {needed} bytes"
            )));
        }
        let (id, material) = (TransportId(transport), material.to_vec());
        self.submit(
            py,
            Command::SetKeys {
                id,
                profile,
                material,
                is_client,
            },
        )
    }

    fn close_transport(&self, py: Python<'_>, transport: u64) -> PyResult<()> {
        self.submit(
            py,
            Command::CloseTransport {
                id: TransportId(transport),
            },
        )
    }

    #[pyo3(signature = (transport, *, group, stream))]
    fn publish(
        &self,
        py: Python<'_>,
        transport: u64,
        group: u64,
        stream: ReceiveStream,
    ) -> PyResult<u64> {
        let handle = self.0.handle(home_of(transport));
        let command = Command::Publish {
            id: PublicationId(handle),
            transport: TransportId(transport),
            group: GroupId(group),
            stream: Box::new(stream.0),
        };
        self.submit(py, command)?;
        Ok(handle)
    }

    fn update_publication(
        &self,
        py: Python<'_>,
        publication: u64,
        stream: ReceiveStream,
    ) -> PyResult<()> {
        let (id, stream) = (PublicationId(publication), Box::new(stream.0));
        self.submit(py, Command::UpdatePublication { id, stream })
    }

    fn unpublish(&self, py: Python<'_>, publication: u64) -> PyResult<()> {
        self.submit(
            py,
            Command::Unpublish {
                id: PublicationId(publication),
            },
        )
    }

    fn set_gate(&self, py: Python<'_>, publication: u64, open: bool) -> PyResult<()> {
        self.submit(
            py,
            Command::SetGate {
                id: PublicationId(publication),
                open,
            },
        )
    }

    #[pyo3(signature = (transport, *, bits_per_s, packets_per_s))]
    fn set_ingress_limit(
        &self,
        py: Python<'_>,
        transport: u64,
        bits_per_s: u64,
        packets_per_s: u64,
    ) -> PyResult<()> {
        let limit = IngressLimit {
            bits_per_s,
            packets_per_s,
        };
        self.submit(
            py,
            Command::SetIngressLimit {
                id: TransportId(transport),
                limit,
            },
        )
    }

    #[pyo3(signature = (transport, *, bits_per_s))]
    fn set_budget(&self, py: Python<'_>, transport: u64, bits_per_s: u64) -> PyResult<()> {
        let id = TransportId(transport);
        self.submit(py, Command::SetBudget { id, bits_per_s })
    }

    #[pyo3(signature = (
        transport, *, mid, video, codecs, extensions, ssrc, rtx_ssrc = 0, cname = ""
    ))]
    #[allow(clippy::too_many_arguments)] // the stub's keywords
    fn subscribe(
        &self,
        py: Python<'_>,
        transport: u64,
        mid: String,
        video: bool,
        codecs: Vec<Codec>,
        extensions: Extensions,
        ssrc: u32,
        rtx_ssrc: u32,
        cname: &str,
    ) -> PyResult<u64> {
        check_mid(&mid)?;
        if ssrc == 0 || cname.len() > MAX_CNAME_BYTES {
            return Err(PyValueError::new_err(
                "ssrc is not 0, cname at most 255 bytes",
            ));
        }
        let handle = self.0.handle(home_of(transport));
        let command = Command::Subscribe {
            id: SubscriptionId(handle),
            transport: TransportId(transport),
            stream: Box::new(media::SendStream {
                mid,
                video,
                codecs: self::codecs(codecs)?,
                extensions: extensions.0,
                ssrc,
                rtx_ssrc,
                cname: cname.to_owned(),
            }),
        };
        self.submit(py, command)?;
        Ok(handle)
    }

    #[pyo3(signature = (subscription, publication))]
    fn set_source(
        &self,
        py: Python<'_>,
        subscription: u64,
        publication: Option<u64>,
    ) -> PyResult<()> {
        let source = publication.map(PublicationId);
        self.submit(
            py,
            Command::SetSource {
                id: SubscriptionId(subscription),
                source,
            },
        )
    }

    #[pyo3(signature = (subscription, *, max_layer, paused))]
    fn set_layer(
        &self,
        py: Python<'_>,
        subscription: u64,
        max_layer: u8,
        paused: bool,
    ) -> PyResult<()> {
        self.submit(
            py,
            Command::SetLayer {
                id: SubscriptionId(subscription),
                max_layer,
                paused,
            },
        )
    }

    #[pyo3(signature = (subscription, *, max_fps))]
    fn set_frame_rate(&self, py: Python<'_>, subscription: u64, max_fps: u8) -> PyResult<()> {
        let id = SubscriptionId(subscription);
        self.submit(py, Command::SetFrameRate { id, max_fps })
    }

    #[pyo3(signature = (subscription, *, priority))]
    fn set_priority(&self, py: Python<'_>, subscription: u64, priority: u8) -> PyResult<()> {
        let id = SubscriptionId(subscription);
        self.submit(py, Command::SetPriority { id, priority })
    }

    #[pyo3(signature = (group, *, places, dominant=None))]
    fn set_loudest(
        &self,
        py: Python<'_>,
        group: u64,
        places: u8,
        dominant: Option<u64>,
    ) -> PyResult<()> {
        let (group, dominant) = (GroupId(group), dominant.map(PublicationId));
        self.submit(
            py,
            Command::SetLoudest {
                group,
                places,
                dominant,
            },
        )
    }

    fn unsubscribe(&self, py: Python<'_>, subscription: u64) -> PyResult<()> {
        self.submit(
            py,
            Command::Unsubscribe {
                id: SubscriptionId(subscription),
            },
        )
    }

    fn fail_deliberately(&self, py: Python<'_>, transport: u64) -> PyResult<()> {
        self.submit(
            py,
            Command::FailDeliberately {
                id: TransportId(transport),
            },
        )
    }

    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let report = py.detach(|| self.0.report());
        report_to_python(py, &report)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

fn event_to_python(py: Python<'_>, event: Event) -> PyResult<Bound<'_, PyAny>> {
    let tuple = match event {
        Event::Validated(id) => ("validated", id.0, py.None()).into_pyobject(py)?,
        Event::Datagram(id, bytes) => {
            ("datagram", id.0, PyBytes::new(py, &bytes)).into_pyobject(py)?
        }
        Event::Silent(id) => ("silent", id.0, py.None()).into_pyobject(py)?,
        Event::Heard(id) => ("heard", id.0, py.None()).into_pyobject(py)?,
        Event::Expired(id) => ("expired", id.0, py.None()).into_pyobject(py)?,
        Event::Media(media::Event::FirstPacket(id, layer, payload_type)) => {
            ("first_packet", id.0, (layer, payload_type)).into_pyobject(py)?
        }
        Event::Media(media::Event::Bye(id)) => ("bye", id.0, py.None()).into_pyobject(py)?,
        Event::Media(media::Event::Keyframe(id)) => {
            ("keyframe", id.0, py.None()).into_pyobject(py)?
        }
        Event::Media(media::Event::Paused(id)) => ("paused", id.0, py.None()).into_pyobject(py)?,
        Event::Media(media::Event::Resumed(id)) => {
            ("resumed", id.0, py.None()).into_pyobject(py)?
        }
        Event::Media(media::Event::Levels(group, levels)) => {
            let levels: Vec<_> = levels
                .into_iter()
                .map(|heard| (heard.publication.0, heard.level, heard.medium, heard.long))
                .collect();
            ("levels", group.0, levels).into_pyobject(py)?
        }
    };
    Ok(tuple.into_any())
}
