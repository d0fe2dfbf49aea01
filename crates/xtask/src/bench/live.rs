//! Times that a user feels, taken from outside on a running `plumb dev`.

use std::fmt::Write;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::world::{World, get, holds, kill, until};
use super::{Table, median, ms};

/// `dev --once` on the quickstart: fresh state each time, and again on the same state.
pub fn once(table: &mut Table) -> Result<(), String> {
    let mut fresh = Vec::new();
    for _ in 0..10 {
        let world = World::new()?;
        world.serving_app()?;
        fresh.push(one_run(&world)?);
    }
    fresh.remove(0);
    table.row(
        "`dev --once` on the quickstart's app, fresh state: command → converged and stopped",
        &ms(&fresh),
        "≤ 1500 ms",
    );
    let world = World::new()?;
    world.serving_app()?;
    one_run(&world)?;
    let again: Vec<Duration> = (0..9).map(|_| one_run(&world)).collect::<Result<_, _>>()?;
    table.row("the same on state that is there", &ms(&again), "≤ 1500 ms");
    Ok(())
}

fn one_run(world: &World) -> Result<Duration, String> {
    let repo = world.repo();
    let began = Instant::now();
    world.run(&["dev", &repo.to_string_lossy(), "--once"])?;
    Ok(began.elapsed())
}

/// Killed with -9 → serving again, beyond the app's own start-up, taken in the same run.
pub fn restart(table: &mut Table) -> Result<(), String> {
    let world = World::new()?;
    world.serving_app()?;
    let (dev, line) = world.start(&["dev", &world.repo().to_string_lossy()], "answers at")?;
    let port: u16 = line
        .rsplit(':')
        .next()
        .and_then(|p| p.trim().parse().ok())
        .ok_or("no port")?;
    let mut own = Vec::new();
    let mut again = Vec::new();
    for round in 0..10 {
        // Below the rate at which restarts back off.
        std::thread::sleep(Duration::from_secs(3));
        let pid = served_by(port).ok_or("the app does not answer")?;
        kill(pid);
        let took = until("serving again", || {
            served_by(port).is_some_and(|p| p != pid)
        })?;
        let bare = bare_start(&world)?;
        if round > 0 {
            again.push(took);
            own.push(bare);
        }
    }
    drop(dev);
    let beyond = median(&again).saturating_sub(median(&own));
    table.row("app killed with -9 → serving again", &ms(&again), "");
    table.row("the app's own start-up, run bare", &ms(&own), "");
    table.row(
        "the first beyond the second, medians",
        &format!("{:.1} ms", beyond.as_secs_f64() * 1e3),
        "≤ 100 ms",
    );
    Ok(())
}

/// The process id in the app's answer.
fn served_by(port: u16) -> Option<u32> {
    let body = get(port, "/")?;
    body.trim_end()
        .trim_end_matches(')')
        .rsplit(' ')
        .next()?
        .parse()
        .ok()
}

/// Starts the same program without Plumb, until it answers.
pub fn bare_start(world: &World) -> Result<Duration, String> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .map_err(|e| e.to_string())?
        .port();
    let began = Instant::now();
    let mut child = std::process::Command::new("python3")
        .arg("server.py")
        .current_dir(world.repo().join("app"))
        .env("PORT", free.to_string())
        .env("GREETING", "hi")
        .env("RELEASE", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    let result = until("a bare start", || get(free, "/").is_some()).map(|_| began.elapsed());
    let _ = child.kill();
    let _ = child.wait();
    result
}

/// One file deleted or edited, alone and among a thousand → as it should be again.
pub fn heal(table: &mut Table) -> Result<(), String> {
    for count in [1, 1000] {
        let world = World::new()?;
        world.write(
            "plumb.yaml",
            "kind: Workspace\nname: bench\n---\nkind: Machine\nname: m\n",
        )?;
        let managed = world.managed();
        let mut setup = String::from("kind: Setup\nname: base\nmachines: all\nfiles:\n");
        for n in 0..count {
            let _ = writeln!(
                setup,
                "  {}/f{n}: {{ content: \"file {n}\\n\" }}",
                managed.display()
            );
        }
        world.write("setup.yaml", &setup)?;
        let (dev, _) = world.start(&["dev", &world.repo().to_string_lossy()], "Watching")?;
        let mut deleted = Vec::new();
        let mut edited = Vec::new();
        for round in 0..22 {
            // Below the rate at which corrections count as flapping.
            std::thread::sleep(Duration::from_secs(2));
            let path = managed.join("f0");
            fs::remove_file(&path).map_err(|e| e.to_string())?;
            let took = until("restored", || holds(&path, "file 0\n"))?;
            std::thread::sleep(Duration::from_millis(200));
            fs::write(&path, "edited\n").map_err(|e| e.to_string())?;
            let mended = until("mended", || holds(&path, "file 0\n"))?;
            if round > 0 {
                deleted.push(took);
                edited.push(mended);
            }
        }
        drop(dev);
        let among = if count == 1 {
            "alone".to_owned()
        } else {
            format!("among {count}")
        };
        table.row(
            &format!("managed file deleted → restored, {among}"),
            &ms(&deleted),
            "≤ 100 ms",
        );
        table.row(
            &format!("managed file edited → healed, {among}"),
            &ms(&edited),
            "≤ 60 ms",
        );
    }
    Ok(())
}
