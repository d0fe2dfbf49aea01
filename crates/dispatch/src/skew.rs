//! Clocks that differ: what is said of them, to the machine's own log and to whoever looks at the fleet.

use plumb_model::Timestamp;

/// Clocks that differ by more than this are worth telling a person about, in milliseconds: certificates and the
/// order of events in a log start to suffer.
const SKEW_WORTH_TELLING_MS: i64 = 60_000;

/// How far a machine's clock is ahead of the control plane's, in milliseconds; negative if it is behind.
pub(crate) fn ahead_ms(machine: Timestamp, server: Timestamp) -> i64 {
    let (machine, server) = (machine.as_millisecond(), server.as_millisecond());
    machine.saturating_sub(server)
}

/// What is said of a clock that is so far ahead, if that is worth telling.
pub(crate) fn said(whose: &str, ahead_ms: i64) -> Option<String> {
    if ahead_ms.saturating_abs() <= SKEW_WORTH_TELLING_MS {
        return None;
    }
    let way = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let seconds = ahead_ms.unsigned_abs() / 1000;
    let apart = match seconds {
        0..600 => format!("{seconds} s"),
        600..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    };
    Some(format!(
        "{whose} is {apart} {way} the control plane's; set it, such as with systemd-timesyncd or chrony"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation: tell of every difference.
    #[test]
    fn clocks_are_told_of_once_they_are_a_minute_apart() {
        for (ahead_ms, expected) in [
            (0, None),
            (60_000, None),
            (-60_000, None),
            (60_001, Some("60 s ahead of the")),
            (-120_000, Some("120 s behind the")),
            (3_600_000, Some("60 min ahead of the")),
            (7_260_000, Some("2 h ahead of the")),
            (-315_360_000_000, Some("3650 days behind the")),
            (i64::MIN, Some("days behind the")),
        ] {
            let said = said("its clock", ahead_ms);
            assert_eq!(said.is_some(), expected.is_some(), "{ahead_ms}");
            let text = said.unwrap_or_default();
            assert!(text.contains(expected.unwrap_or_default()), "{text}");
        }
    }
}
