//! Turns the names of users and groups into numbers, by reading /etc/passwd and /etc/group once for each batch.

use std::collections::HashMap;

use plumb_model::{Fault, condition::Reason};

/// The names that one batch has asked for.
#[derive(Debug, Default)]
pub(super) struct Users {
    users: Option<HashMap<String, u32>>,
    groups: Option<HashMap<String, u32>>,
}

impl Users {
    /// A user's number: of its name, or the number as it is written.
    pub(super) fn user(&mut self, name: &str) -> Result<u32, Fault> {
        resolve(&mut self.users, "/etc/passwd", "user", "useradd", name)
    }

    /// A group's number.
    pub(super) fn group(&mut self, name: &str) -> Result<u32, Fault> {
        resolve(&mut self.groups, "/etc/group", "group", "groupadd", name)
    }

    /// The name of a user; the number where it has none.
    pub(super) fn name_of_user(&mut self, number: u32) -> String {
        name_of(&mut self.users, "/etc/passwd", number)
    }

    /// The name of a group; the number where it has none.
    pub(super) fn name_of_group(&mut self, number: u32) -> String {
        name_of(&mut self.groups, "/etc/group", number)
    }
}

fn name_of(table: &mut Option<HashMap<String, u32>>, file: &str, number: u32) -> String {
    let table = table.get_or_insert_with(|| read(file));
    let mut names = table.iter().filter(|(_, n)| **n == number);
    // Of several names for one number always the same.
    let first = names.next().map(|(name, _)| name);
    let name = names.map(|(name, _)| name).chain(first).min();
    name.map_or_else(|| number.to_string(), Clone::clone)
}

fn resolve(
    table: &mut Option<HashMap<String, u32>>,
    file: &str,
    what: &str,
    command: &str,
    name: &str,
) -> Result<u32, Fault> {
    // The highest number is the kernel's "leave it as it is", and so no user.
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
        return name.parse().ok().filter(|n| *n != u32::MAX).ok_or_else(|| {
            Fault::new(
                Reason::UnknownUser,
                format!(
                    "{name} is no {what} number: the highest is {}",
                    u32::MAX - 1
                ),
            )
        });
    }
    let table = match table {
        Some(table) => table,
        None => table.insert(read(file)),
    };
    table.get(name).copied().ok_or_else(|| {
        Fault::new(
            Reason::UnknownUser,
            format!(
                "the {what} {name:?} does not exist on this machine; make it with `{command} {name}`, or write a number"
            ),
        )
    })
}

/// Reads `NAME:_:NUMBER:…` lines. A file that cannot be read knows nobody, and the fault then names who is missing.
fn read(file: &str) -> HashMap<String, u32> {
    let text = std::fs::read(file).unwrap_or_default();
    let mut table = HashMap::new();
    for line in String::from_utf8_lossy(&text).lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(_), Some(Ok(number))) = (
            fields.next(),
            fields.next(),
            fields.next().map(str::parse::<u32>),
        ) {
            table.entry(name.to_owned()).or_insert(number);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_resolve_and_unknown_ones_are_named() {
        let mut users = Users::default();
        assert_eq!(users.user("root"), Ok(0));
        assert_eq!(users.group("root"), Ok(0));
        assert_eq!(users.user("4711"), Ok(4711));
        for unknown in ["no-such-user", "", "4294967295", "99999999999"] {
            let fault = users.user(unknown).unwrap_err();
            assert_eq!(fault.reason, Reason::UnknownUser);
            assert!(fault.message.contains(unknown), "{fault}");
        }
    }
}
