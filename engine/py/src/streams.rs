//! The descriptions of streams as Python hands them in.

use parley_core::media;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Bytes of a mid, rid, codec name: what a two-byte header extension carries with ease.
const MAX_NAME_BYTES: usize = 64;
const MAX_MID_BYTES: usize = 16;
const MAX_RIDS: usize = 4;
const MAX_CODECS: usize = 128;
const MAX_SSRCS: usize = 64;

fn invalid(what: &'static str) -> PyErr {
    PyValueError::new_err(what)
}

/// A name that may be empty.
fn check_name(name: &str, most: usize, what: &'static str) -> PyResult<()> {
    if name.len() > most || !name.is_ascii() {
        return Err(invalid(what));
    }
    Ok(())
}

pub fn check_mid(mid: &str) -> PyResult<()> {
    check_name(
        mid,
        MAX_MID_BYTES,
        "mid must be at most 16 ASCII characters",
    )
}

/// One negotiated payload type of a stream. `name` is upper or lower case as signalled.
#[pyclass(frozen, module = "sfu._engine", from_py_object)]
#[derive(Clone)]
pub struct Codec(pub media::Codec);

#[pymethods]
impl Codec {
    #[new]
    #[pyo3(signature = (
        *, payload_type, name, clock_rate, channels = 1, rtx_payload_type = None, nack = false,
        pli = false, fir = false, remb = false, transport_cc = false
    ))]
    #[allow(clippy::too_many_arguments)] // the stub's keywords
    fn new(
        payload_type: u8,
        name: String,
        clock_rate: u32,
        channels: u8,
        rtx_payload_type: Option<u8>,
        nack: bool,
        pli: bool,
        fir: bool,
        remb: bool,
        transport_cc: bool,
    ) -> PyResult<Self> {
        if payload_type > 127 || rtx_payload_type.is_some_and(|rtx| rtx > 127) {
            return Err(invalid("payload types are 0..127"));
        }
        if name.is_empty() || clock_rate == 0 || channels == 0 {
            return Err(invalid("a codec has a name, a clock rate and a channel"));
        }
        check_name(
            &name,
            MAX_NAME_BYTES,
            "codec name must be at most 64 ASCII characters",
        )?;
        Ok(Self(media::Codec {
            payload_type,
            name,
            clock_rate,
            channels,
            rtx: rtx_payload_type,
            nack,
            pli,
            fir,
            remb,
            transport_cc,
        }))
    }
}

pub fn codecs(list: Vec<Codec>) -> PyResult<Vec<media::Codec>> {
    if list.len() > MAX_CODECS {
        return Err(invalid("too many codecs"));
    }
    Ok(list.into_iter().map(|codec| codec.0).collect())
}

/// Negotiated header extension ids of a section; 0 = not negotiated.
#[pyclass(frozen, module = "sfu._engine", from_py_object)]
#[derive(Clone)]
pub struct Extensions(pub media::Extensions);

#[pymethods]
impl Extensions {
    #[new]
    #[pyo3(signature = (
        *, mid = 0, rid = 0, repaired_rid = 0, audio_level = 0, transport_cc = 0, abs_send_time = 0,
        video_orientation = 0, abs_capture_time = 0, playout_delay = 0, dependency_descriptor = 0,
        frame_marking = 0
    ))]
    #[allow(clippy::too_many_arguments)] // the stub's keywords
    fn new(
        mid: u8,
        rid: u8,
        repaired_rid: u8,
        audio_level: u8,
        transport_cc: u8,
        abs_send_time: u8,
        video_orientation: u8,
        abs_capture_time: u8,
        playout_delay: u8,
        dependency_descriptor: u8,
        frame_marking: u8,
    ) -> Self {
        Self(media::Extensions {
            mid,
            rid,
            repaired_rid,
            audio_level,
            transport_cc,
            abs_send_time,
            video_orientation,
            abs_capture_time,
            playout_delay,
            dependency_descriptor,
            frame_marking,
        })
    }
}

/// How incoming packets of one section find their track: signalled SSRCs, or mid/rid extensions.
#[pyclass(frozen, module = "sfu._engine", from_py_object)]
#[derive(Clone)]
pub struct ReceiveStream(pub media::ReceiveStream);

#[pymethods]
impl ReceiveStream {
    #[new]
    #[pyo3(signature = (*, mid, video, codecs, extensions, rids = vec![], ssrcs = vec![], encrypted = false))]
    fn new(
        mid: String,
        video: bool,
        codecs: Vec<Codec>,
        extensions: Extensions,
        rids: Vec<String>,
        ssrcs: Vec<(u32, u32)>,
        encrypted: bool,
    ) -> PyResult<Self> {
        check_mid(&mid)?;
        if rids.len() > MAX_RIDS || ssrcs.len() > MAX_SSRCS {
            return Err(invalid("at most 4 rids and 64 ssrcs"));
        }
        for rid in &rids {
            check_name(
                rid,
                MAX_NAME_BYTES,
                "rid must be at most 64 ASCII characters",
            )?;
        }
        Ok(Self(media::ReceiveStream {
            mid,
            video,
            codecs: self::codecs(codecs)?,
            extensions: extensions.0,
            rids,
            ssrcs,
            encrypted,
        }))
    }
}
