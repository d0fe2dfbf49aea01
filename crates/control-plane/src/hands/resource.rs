//! Which resource somebody means who names one on a command line.

use std::collections::BTreeSet;

use plumb_model::Address;

/// How many candidates are named where one text fits several.
const NAMED: usize = 5;

/// The one address that is this text, or that ends with it behind a slash. Otherwise a hint that goes on a sentence.
pub(super) fn find<'a>(
    text: &str,
    addresses: impl Iterator<Item = &'a Address>,
) -> Result<Address, String> {
    let mut ends: BTreeSet<&Address> = BTreeSet::new();
    let mut all: Vec<(&Address, String)> = Vec::new();
    for address in addresses {
        let full = address.to_string();
        if full == text {
            return Ok(address.clone());
        }
        // What follows the machine's name, or that and the owner's.
        let mut rest = full.as_str();
        for _ in 0..3 {
            let Some((_, behind)) = rest.split_once('/') else {
                break;
            };
            rest = behind;
            if rest == text {
                ends.insert(address);
            }
        }
        all.push((address, full));
    }
    let mut ends = ends.into_iter();
    match (ends.next(), ends.next()) {
        (Some(one), None) => Ok(one.clone()),
        (Some(one), Some(two)) => {
            let more = ends.by_ref().take(NAMED - 2);
            let names: Vec<String> = [one, two]
                .into_iter()
                .chain(more)
                .map(ToString::to_string)
                .collect();
            let rest = if ends.next().is_some() { ", …" } else { "" };
            Err(format!(
                " by that name alone: name the one that is meant, of {}{rest}",
                names.join(", ")
            ))
        }
        (None, _) => {
            let candidates = all.iter().flat_map(|(address, full)| {
                let short = full
                    .strip_prefix(address.machine.as_str())
                    .and_then(|rest| rest.strip_prefix('/'));
                [Some(full.as_str()), short].into_iter().flatten()
            });
            let near = plumb_blueprint::nearest(text, candidates);
            Err(near.map_or(String::new(), |near| format!("; did you mean {near}?")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_known_by_its_address_or_by_an_end_that_only_it_has() {
        let known: Vec<Address> = [
            "web-1/hello/process/app/0",
            "web-2/hello/process/app/0",
            "web-1/base/file//etc/motd",
        ]
        .into_iter()
        .map(|text| text.parse().unwrap())
        .collect();
        let find = |text: &str| find(text, known.iter()).map(|found| found.to_string());
        for (text, means) in [
            ("web-2/hello/process/app/0", "web-2/hello/process/app/0"),
            ("base/file//etc/motd", "web-1/base/file//etc/motd"),
            ("/etc/motd", "web-1/base/file//etc/motd"),
        ] {
            assert_eq!(find(text).as_deref(), Ok(means));
        }
        for (text, hint) in [
            (
                "hello/process/app/0",
                "of web-1/hello/process/app/0, web-2/",
            ),
            ("base/file//etc/mot", "did you mean base/file//etc/motd?"),
            ("web-3/hello/process/app/0", "did you mean web-1/hello"),
        ] {
            let told = find(text).unwrap_err();
            assert!(told.contains(hint), "{text}: {told}");
        }
    }
}
