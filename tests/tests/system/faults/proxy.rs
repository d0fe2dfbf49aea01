//! A TCP proxy between agents and server that delays, holds one direction back, and breaks connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the proxy does to what passes.
#[derive(Debug, Default)]
pub struct Weather {
    /// Each piece is held for up to so many milliseconds, drawn anew, so that what goes over several connections overtakes.
    pub delay_ms: AtomicU64,
    /// Nothing passes towards the server.
    pub cut_up: AtomicBool,
    /// Nothing passes towards the agents.
    pub cut_down: AtomicBool,
    /// How many connections have come.
    pub came: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Weather {
    /// Breaks every connection that is open.
    pub fn break_all(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Forwards to an address until the test ends; where it listens.
pub fn start(to: String) -> (String, Arc<Weather>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let weather = Arc::new(Weather::default());
    let seen = weather.clone();
    std::thread::spawn(move || {
        let mut number = 0;
        for near in listener.incoming().flatten() {
            seen.came.fetch_add(1, Ordering::Relaxed);
            let Ok(far) = TcpStream::connect(&to) else {
                continue;
            };
            number += 1;
            for stream in [&near, &far] {
                let _ = stream.set_nodelay(true);
                seen.open.lock().unwrap().push(stream.try_clone().unwrap());
            }
            let (near_back, far_back) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let (up, down) = (seen.clone(), seen.clone());
            std::thread::spawn(move || pump(near, far, &up, |w| &w.cut_up, number * 2));
            std::thread::spawn(move || {
                pump(far_back, near_back, &down, |w| &w.cut_down, number * 2 + 1)
            });
        }
    });
    (address, weather)
}

fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    weather: &Weather,
    cut: fn(&Weather) -> &AtomicBool,
    seed: u64,
) {
    let mut bytes = vec![0; 64 * 1024];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while let Ok(count) = from.read(&mut bytes) {
        if count == 0 {
            break;
        }
        let most = weather.delay_ms.load(Ordering::Relaxed);
        if most > 0 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            std::thread::sleep(Duration::from_millis((state >> 33) % most));
        }
        while cut(weather).load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
