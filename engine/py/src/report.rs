//! Counters as Python values: a dictionary per row, read once a second for thousands of rows.
//!
//! Not here: what is counted (`parley-core`), what it means (`sfu/_engine.pyi`).

use parley_core::media::{LayerStatistics, PublicationStatistics, SubscriptionStatistics};
use parley_core::plane::{Drops, TransportStatistics};
use parley_io::{Load, RelayCounters, Report, StreamCounters};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// A dictionary whose keys are made once, not per row.
macro_rules! row {
    ($py:expr, $($key:literal: $value:expr),* $(,)?) => {{
        let row = PyDict::new($py);
        $(row.set_item(intern!($py, $key), $value)?;)*
        row
    }};
}

/// All counters of a plane, as the stub shows them.
pub fn report_to_python<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyDict>> {
    let plane = &report.plane;
    let transports = PyList::empty(py);
    for (id, own) in &plane.transports {
        transports.append((id.0, transport_row(py, own)?))?;
    }
    let (publications, layers) = (PyList::empty(py), PyList::empty(py));
    for (id, own) in &plane.publications {
        publications.append((id.0, publication_row(py, own)?))?;
        for (layer, index) in own.by_layer.iter().zip(0u8..) {
            if layer.packets > 0 {
                layers.append((id.0, layer_row(py, layer, index)?))?;
            }
        }
    }
    let subscriptions = PyList::empty(py);
    for (id, own) in &plane.subscriptions {
        subscriptions.append((id.0, subscription_row(py, own)?))?;
    }
    let loads = PyList::empty(py);
    for (own, shard) in report.loads.iter().zip(0u8..) {
        loads.append((shard, load_row(py, own)?))?;
    }
    Ok(row!(py,
        "transports": transports,
        "publications": publications,
        "layers": layers,
        "subscriptions": subscriptions,
        "drops": vec![(0, drops_row(py, &plane.drops, report)?)],
        "connections": vec![(0, connections_row(py, &report.streams)?)],
        "relays": vec![(0, relays_row(py, &report.relays)?)],
        "waits": vec![(0, row!(py, "pictures": report.waited))],
        "loads": loads,
    ))
}

/// Counters by name.
type Row<'py> = PyResult<Bound<'py, PyDict>>;

fn publication_row<'py>(py: Python<'py>, own: &PublicationStatistics) -> Row<'py> {
    Ok(row!(py,
        "packets": own.packets,
        "bytes": own.bytes,
        "octets": own.octets,
        "lost": own.lost,
        "nacks_sent": own.nacks_sent,
        "plis_sent": own.plis_sent,
        "firs_sent": own.firs_sent,
        "jitter": own.jitter,
        "layers": own.layers,
        "gated": own.gated,
        "off_stage": own.off_stage,
    ))
}

fn subscription_row<'py>(py: Python<'py>, own: &SubscriptionStatistics) -> Row<'py> {
    Ok(row!(py,
        "packets": own.packets,
        "bytes": own.bytes,
        "octets": own.octets,
        "nacks": own.nacks,
        "asked_again": own.asked_again,
        "plis": own.plis,
        "firs": own.firs,
        "retransmitted": own.retransmitted,
        "retransmitted_octets": own.retransmitted_octets,
        "layer": own.layer,
        "target_bps": own.target_bps,
        "limited": u64::from(own.limited),
        "shed": u64::from(own.shed),
        "lost": own.reception.lost,
        "fraction_lost": u64::from(own.reception.fraction),
        "jitter": u64::from(own.reception.jitter),
        "rtt_us": own.reception.rtt_us,
        "first_sequence": own.first_sequence,
        "last_sequence": own.last_sequence,
    ))
}

fn layer_row<'py>(py: Python<'py>, own: &LayerStatistics, index: u8) -> Row<'py> {
    Ok(row!(py,
        "layer": index,
        "packets": own.packets,
        "bytes": own.bytes,
        "octets": own.octets,
        "lost": own.lost,
        "jitter": own.jitter,
        "bps": own.bps,
        "frames": own.frames,
        "key_frames": own.key_frames,
        "freezes": own.freezes,
        "frozen_us": own.frozen_us,
        "live": u64::from(own.live),
    ))
}

fn transport_row<'py>(py: Python<'py>, own: &TransportStatistics) -> Row<'py> {
    Ok(row!(py,
        "packets_in": own.packets_in,
        "bytes_in": own.bytes_in,
        "packets_out": own.packets_out,
        "bytes_out": own.bytes_out,
        "auth_failures": own.auth_failures,
        "replays": own.replays,
        "rtt_us": own.rtt_us,
        "report_rtt_us": own.report_rtt_us,
        "estimate_bps": own.estimate_bps,
        "queue_us": own.queue_us,
        "paced_us": own.paced_us,
        "paced_dropped": own.paced_dropped,
        "state": own.state as u64,
    ))
}

fn connections_row<'py>(py: Python<'py>, own: &StreamCounters) -> Row<'py> {
    Ok(row!(py,
        "open": own.open,
        "refused": own.refused,
        "unproven": own.unproven,
        "stuck": own.stuck,
        "dropped_video": own.dropped_video,
        "dropped_audio": own.dropped_audio,
    ))
}

fn relays_row<'py>(py: Python<'py>, own: &RelayCounters) -> Row<'py> {
    Ok(row!(py,
        "passed_on": own.passed_on,
        "relayed": own.relayed,
    ))
}

fn load_row<'py>(py: Python<'py>, load: &Load) -> Row<'py> {
    let own = &load.own;
    Ok(row!(py,
        "shedding": u64::from(own.is_shedding),
        "used_permille": own.used,
        "capacity_permille": own.capacity,
        "budget_bps": own.budget_bps,
        "paused": load.paused,
        "lowered": load.lowered,
        "episodes": own.episodes,
        "brakes": own.brakes,
        "late": own.late,
        "longest_wait_us": own.longest_wait_us,
    ))
}

fn drops_row<'py>(py: Python<'py>, drops: &Drops, report: &Report) -> Row<'py> {
    Ok(row!(py,
        "unknown_ufrag": drops.unknown_ufrag,
        "unvalidated": drops.unvalidated,
        "bad_integrity": drops.bad_integrity,
        "malformed": drops.malformed,
        "foreign_ssrc": drops.foreign_ssrc,
        "over_limit": drops.over_limit,
        "no_keys": drops.no_keys,
        "half_open": drops.half_open,
        "ring_full": report.lost_events,
        "panics": report.panics,
        "refused_commands": report.refused_commands,
        "refused_sends": report.refused_sends,
        "relay_full": report.relays.dropped,
        "strangers": report.relays.strangers,
    ))
}
