//! Counts what the agents of this process complain of, by what they say: agents that are many must not be heard one by
//! one, and a burst of errors is one of the things that are measured.

use std::fmt::{Debug, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::figures::Figures;

/// Counts from now on, in the whole process.
pub fn count_into(figures: Arc<Figures>) {
    let counter = tracing_subscriber::registry().with(Counter(figures));
    // Only the first can be set, and nobody else sets one.
    let _ = tracing::subscriber::set_global_default(counter);
}

struct Counter(Arc<Figures>);

impl<S: Subscriber> Layer<S> for Counter {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Message(String::new());
        event.record(&mut text);
        self.0.warned(text.0);
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}
