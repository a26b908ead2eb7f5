//! Log lines as JSON objects: each key once, numbers as numbers, and the fields of the spans
//! around an event beside its own.

use std::{error::Error, fmt, io::Write as _};

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::Context, registry::LookupSpan};

const TIMESTAMP: &str = "timestamp";
const LEVEL: &str = "level";
const MESSAGE: &str = "message";
/// The name of the innermost span.
const SPAN: &str = "span";

/// Begins the text of a field that is JSON itself; see [`List`].
const JSON: char = '\u{1e}';

/// A list as the value of a field: an array in JSON, and readable text otherwise.
pub(crate) struct List<'a, T>(pub &'a [T]);

impl<T: AsRef<str>> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<&str> = self.0.iter().map(AsRef::as_ref).collect();
        // `Values` formats so. `tracing` has no fields with several values.
        match f.alternate() {
            true => write!(f, "{JSON}{}", Value::from(items)),
            false => write!(f, "[{}]", items.join(", ")),
        }
    }
}

/// Writes a line for each event.
pub(super) struct JsonLines<W> {
    writer: W,
}

impl<W> JsonLines<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer }
    }
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut values = Values::default();
        attributes.record(&mut values);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(values);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(values) = span.extensions_mut().get_mut::<Values>()
        {
            record.record(values);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Values::default();
        event.record(&mut fields);
        let mut line = Values::default();
        line.set(TIMESTAMP, format!("{:.6}", Timestamp::now()).into());
        line.set(LEVEL, event.metadata().level().as_str().into());
        let message = fields.0.iter().find(|(name, _)| *name == MESSAGE);
        // Libraries may give an event a name in place of a text.
        let name = || event.metadata().name().into();
        line.set(MESSAGE, message.map_or_else(name, |(_, message)| message.clone()));
        line.add(&fields);
        for span in context.event_scope(event).into_iter().flatten() {
            line.add(&Values(vec![(SPAN, span.name().into())]));
            if let Some(values) = span.extensions().get::<Values>() {
                line.add(values);
            }
        }
        if let Ok(mut text) = serde_json::to_vec(&line) {
            text.push(b'\n');
            // There is nowhere to report it.
            let _ = self.writer.make_writer().write_all(&text);
        }
    }
}

/// The fields of a span, of an event, or of a line.
#[derive(Default)]
struct Values(Vec<(&'static str, Value)>);

impl Values {
    fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    /// What is there already is nearer to the event, and stays.
    fn add(&mut self, others: &Self) {
        for (name, value) in &others.0 {
            if !self.0.iter().any(|(known, _)| known == name) {
                self.0.push((name, value.clone()));
            }
        }
    }

    fn record(&mut self, field: &Field, value: impl Into<Value>) {
        self.set(field.name(), value.into());
    }
}

impl Visit for Values {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        self.record(field, text);
    }

    /// Also for `%value`, which `tracing` passes on in this way.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:#?}");
        let json = text.strip_prefix(JSON).and_then(|json| serde_json::from_str(json).ok());
        self.record(field, json.unwrap_or(Value::String(text)));
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
