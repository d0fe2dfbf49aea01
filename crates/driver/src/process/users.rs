//! Whom a process runs as: looks users up in `/etc/passwd` and `/etc/group`, and makes the system user of an
//! app when it is missing. Users of network directories are not seen, since asking for them takes libraries
//! that a static binary cannot load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use plumb_model::condition::Reason;
use plumb_model::{Fault, Hash, OwnerName};

use crate::host::{Host, RunAs};
use crate::shim::record::Identity;

/// The longest user name that Linux tools take, in bytes.
const MAX_USER_BYTES: usize = 32;

/// A user as the process will see itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The name, or the number of a user without one.
    pub name: String,
    /// The home directory, if there is one.
    pub home: Option<PathBuf>,
    /// The shell; `/bin/sh` for users who may not log in.
    pub shell: String,
    /// Whom to switch to; none is the agent's own user.
    pub switch: Option<Identity>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

/// Finds out whom a process runs as; makes the system user of its app if it is to have one.
pub fn resolve(host: &Host, app_user: &str, wanted: Option<&str>) -> Result<Person, Fault> {
    let own = rustix::process::geteuid().as_raw();
    let wanted = match (wanted, host.run_as) {
        (Some(user), _) => user.to_owned(),
        (None, RunAs::Agent) => return Ok(agent(own)),
        (None, RunAs::AppUsers) => app_user.to_owned(),
    };
    let made_here = wanted == app_user && host.run_as == RunAs::AppUsers;
    let mut account = find(&wanted);
    if account.is_none() && made_here && own == 0 {
        make(&wanted)?;
        account = find(&wanted);
    }
    match account {
        Some(account) if account.uid == own => Ok(agent(own)),
        Some(_) if own != 0 => {
            let message = format!(
                "it is to run as user {wanted}, but the agent runs as user {} and only root can switch: run the agent as root",
                agent(own).name
            );
            Err(Fault::new(Reason::LacksCapability, message))
        }
        Some(account) => {
            let groups = groups(&account);
            Ok(person(&account, Some(groups)))
        }
        None if made_here => {
            let message = format!(
                "each app is to run as a user of its own ({wanted}), but only root can make one: run the agent as root"
            );
            Err(Fault::new(Reason::LacksCapability, message))
        }
        None => {
            let message =
                format!("there is no user {wanted:?} on this machine: create it, or name another");
            Err(Fault::new(Reason::UnknownUser, message))
        }
    }
}

/// The name of an app's system user. A long one keeps its start and ends in a hash of the whole.
pub fn app_user(owner: &OwnerName) -> String {
    let name = format!("plumb-{owner}");
    if name.len() <= MAX_USER_BYTES {
        return name;
    }
    hashed(&name, &name)
}

/// Another name for an app whose own an older app of that name has kept when it was renamed.
pub fn app_user_again(owner: &OwnerName, number: u32) -> String {
    let name = format!("plumb-{owner}");
    hashed(&name, &format!("{name} {number}"))
}

/// The start of a name and a hash, within what Linux tools take.
fn hashed(name: &str, of: &str) -> String {
    let hash = &Hash::of(of.as_bytes()).to_string()[..8];
    format!("{}-{hash}", &name[..name.len().min(MAX_USER_BYTES - 9)])
}

/// The agent's own user.
fn agent(uid: u32) -> Person {
    let account = accounts().into_iter().find(|account| account.uid == uid);
    account.map_or_else(
        || Person {
            name: uid.to_string(),
            home: None,
            shell: "/bin/sh".to_owned(),
            switch: None,
        },
        |account| person(&account, None),
    )
}

fn person(account: &Account, groups: Option<Vec<u32>>) -> Person {
    let home = PathBuf::from(&account.home);
    let no_login = account.shell.ends_with("/nologin") || account.shell.ends_with("/false");
    Person {
        name: account.name.clone(),
        home: Some(home).filter(|home| home.is_absolute() && home.is_dir()),
        shell: if account.shell.is_empty() || no_login {
            "/bin/sh".to_owned()
        } else {
            account.shell.clone()
        },
        switch: groups.map(|groups| Identity {
            uid: account.uid,
            gid: account.gid,
            groups,
        }),
    }
}

/// By name, or by number where no name is like it.
fn find(user: &str) -> Option<Account> {
    let accounts = accounts();
    let named = accounts.iter().find(|account| account.name == user);
    let number = || {
        let uid: u32 = user.parse().ok()?;
        accounts.iter().find(|account| account.uid == uid)
    };
    named.or_else(number).cloned()
}

fn accounts() -> Vec<Account> {
    parse_accounts(&read(Path::new("/etc/passwd")))
}

fn parse_accounts(passwd: &str) -> Vec<Account> {
    passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            Some(Account {
                name: fields.next()?.to_owned(),
                uid: fields.nth(1)?.parse().ok()?,
                gid: fields.next()?.parse().ok()?,
                home: fields.nth(1)?.to_owned(),
                shell: fields.next().unwrap_or_default().to_owned(),
            })
        })
        .collect()
}

fn groups(account: &Account) -> Vec<u32> {
    let text = read(Path::new("/etc/group"));
    let mut groups = vec![account.gid];
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields.as_slice() else {
            continue;
        };
        let member = members.split(',').any(|member| member == account.name);
        if let Ok(gid) = gid.parse()
            && member
            && !groups.contains(&gid)
        {
            groups.push(gid);
        }
    }
    groups
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn make(name: &str) -> Result<(), Fault> {
    let made = Command::new("useradd")
        .args(["--system", "--no-create-home", "--user-group"])
        .args(["--shell", "/usr/sbin/nologin", "--"])
        .arg(name)
        .env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .output();
    let why = match made {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            plumb_model::escape::line(said.trim()).into_owned()
        }
        Err(error) => error.to_string(),
    };
    let message = format!("the system user {name} cannot be made with useradd: {why}");
    Err(Fault::new(Reason::UnknownUser, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_apps_user_has_its_name_and_never_more_than_32_bytes() {
        let short = OwnerName::new("hello").unwrap();
        assert_eq!(app_user(&short), "plumb-hello");
        let long = |end: &str| OwnerName::new(&format!("{}{end}", "x".repeat(40))).unwrap();
        let (a, b) = (app_user(&long("a")), app_user(&long("b")));
        assert_eq!(a.len(), MAX_USER_BYTES);
        assert_ne!(a, b);
    }

    #[test]
    fn the_password_file_is_read_by_its_columns() {
        let accounts = parse_accounts("root:x:0:0:root:/root:/bin/bash\nbroken\nd:x:5:6::/d:\n");
        assert_eq!(accounts.len(), 2);
        assert_eq!(accounts[1].gid, 6);
        assert_eq!(accounts[1].home, "/d");
    }
}
