//! `sfu._engine`: convert, queue, call. It decides nothing; `sfu/_engine.pyi` is its reference.

mod engine;
mod report;
mod streams;

use std::collections::BTreeMap;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Version, profile, optimisation, hash of the sources, SIMD, compiler: for bug reports and benchmark files.
#[pyfunction]
fn build_info() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("profile", env!("PARLEY_PROFILE").to_owned()),
        ("opt_level", env!("PARLEY_OPT_LEVEL").to_owned()),
        ("sources", env!("PARLEY_SOURCES").to_owned()),
        ("target", env!("PARLEY_TARGET").to_owned()),
        ("compiler", env!("PARLEY_RUSTC").to_owned()),
        ("simd", simd().join(" ")),
    ])
}

/// What the ciphers find on this machine.
fn simd() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        let found = [
            ("aes", is_x86_feature_detected!("aes")),
            ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("vaes", is_x86_feature_detected!("vaes")),
            ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
            ("sha", is_x86_feature_detected!("sha")),
        ];
        found
            .into_iter()
            .filter_map(|(name, is_there)| is_there.then_some(name))
            .collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        vec![std::env::consts::ARCH]
    }
}

/// The ceiling probe: rewrite + AES-128-GCM + sendmmsg of one packet to N loopback destinations.
#[pyfunction]
fn fanout_ceiling(
    py: Python<'_>,
    destinations: usize,
    packet_bytes: usize,
    seconds: f64,
) -> PyResult<BTreeMap<&'static str, f64>> {
    if !(1..=4_096).contains(&destinations) {
        return Err(PyValueError::new_err("destinations must be 1..4096"));
    }
    if !(64..=1_472).contains(&packet_bytes) {
        return Err(PyValueError::new_err("packet_bytes must be 64..1472"));
    }
    if !(seconds > 0.0 && seconds <= 60.0) {
        return Err(PyValueError::new_err(
            "seconds must be above 0 and at most 60",
        ));
    }
    let ceiling = py.detach(|| parley_io::fanout_ceiling(destinations, packet_bytes, seconds))?;
    Ok(BTreeMap::from([
        ("copies", ceiling.copies as f64),
        ("cpu_s", ceiling.cpu_s),
        ("copies_per_cpu_s", ceiling.copies as f64 / ceiling.cpu_s),
    ]))
}

/// (interface, address) of every interface that is up, in the kernel's order.
#[pyfunction]
fn local_addresses() -> PyResult<Vec<(String, String)>> {
    let found = parley_io::local_addresses()?;
    let as_text = |(name, ip): (String, std::net::IpAddr)| (name, ip.to_string());
    Ok(found.into_iter().map(as_text).collect())
}

#[pymodule(gil_used = false)]
mod _engine {
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::streams::{Codec, Extensions, ReceiveStream};
    #[pymodule_export]
    use super::{build_info, fanout_ceiling, local_addresses};
}
