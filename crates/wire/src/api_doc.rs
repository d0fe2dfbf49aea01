//! Makes docs/API.md of the descriptors, and holds that everything in them is documented.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
};

use crate::DESCRIPTOR_SET;
use crate::error::Reason;

/// The order in which services stand on the page: what people call, then what machines do.
const ORDER: [&str; 10] = [
    "control_plane",
    "rollouts",
    "hands",
    "machines",
    "secrets",
    "events",
    "access",
    "operations",
    "enrollment",
    "agents",
];

/// The comments of a file, by the path that descriptors have for a place.
type Comments = BTreeMap<Vec<i32>, String>;

fn comments(file: &FileDescriptorProto) -> Comments {
    let info = file.source_code_info.as_ref();
    let places = info.map_or(&[][..], |info| &info.location);
    places
        .iter()
        .filter_map(|place| {
            let text = place.leading_comments.as_deref()?.trim();
            let text: Vec<&str> = text.lines().map(str::trim).collect();
            (!text.is_empty()).then(|| (place.path.clone(), text.join(" ")))
        })
        .collect()
}

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap();
    let own = set.file.into_iter();
    own.filter(|file| file.package() == "plumb.v1").collect()
}

/// Every place of a file that wants a comment: its path and a name for it.
fn places(file: &FileDescriptorProto) -> Vec<(Vec<i32>, String)> {
    let mut all = Vec::new();
    for (s, service) in (0..).zip(&file.service) {
        all.push((vec![6, s], service.name().to_owned()));
        for (m, method) in (0..).zip(&service.method) {
            all.push((
                vec![6, s, 2, m],
                format!("{}.{}", service.name(), method.name()),
            ));
        }
    }
    for (m, message) in (0..).zip(&file.message_type) {
        of_message(message, vec![4, m], &mut all);
    }
    for (e, one) in (0..).zip(&file.enum_type) {
        of_enum(one, vec![5, e], &mut all);
    }
    all
}

fn of_message(message: &DescriptorProto, at: Vec<i32>, all: &mut Vec<(Vec<i32>, String)>) {
    let is_map = message.options.as_ref().is_some_and(|o| o.map_entry());
    if is_map {
        return;
    }
    let name = message.name();
    for (f, field) in (0..).zip(&message.field) {
        all.push((
            [&at[..], &[2, f]].concat(),
            format!("{name}.{}", field.name()),
        ));
    }
    for (n, nested) in (0..).zip(&message.nested_type) {
        of_message(nested, [&at[..], &[3, n]].concat(), all);
    }
    for (e, one) in (0..).zip(&message.enum_type) {
        of_enum(one, [&at[..], &[4, e]].concat(), all);
    }
    all.push((at, name.to_owned()));
}

fn of_enum(one: &EnumDescriptorProto, at: Vec<i32>, all: &mut Vec<(Vec<i32>, String)>) {
    for (v, value) in (0..).zip(&one.value) {
        all.push((
            [&at[..], &[2, v]].concat(),
            format!("{}.{}", one.name(), value.name()),
        ));
    }
    all.push((at, one.name().to_owned()));
}

/// Mutation: take the comment of a field away.
#[test]
fn every_service_call_message_field_and_value_is_documented() {
    let mut bare = Vec::new();
    for file in files() {
        let comments = comments(&file);
        let here = places(&file).into_iter();
        let missing = here.filter(|(path, _)| !comments.contains_key(path));
        bare.extend(missing.map(|(_, name)| format!("{}: {name}", file.name())));
    }
    assert!(bare.is_empty(), "no comment stands above: {bare:#?}");
    assert!(files().len() > 7);
}

#[test]
fn the_page_about_the_api_is_what_the_protos_say() {
    let page = page();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/API.md");
    if std::env::var_os("PLUMB_UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == page,
        "docs/API.md is not what the protos say; PLUMB_UPDATE=1 cargo test -p plumb-wire writes it"
    );
}

fn page() -> String {
    let mut page = include_str!("api_preface.md").to_owned();
    page.push_str("| reason | gRPC code | when |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let _ = writeln!(
            page,
            "| `{}` | {:?} | {} |",
            reason.as_str(),
            reason.code(),
            reason.about().trim().replace('|', "\\|")
        );
    }
    let mut files = files();
    let stem = |file: &FileDescriptorProto| {
        let name = file.name().rsplit('/').next().unwrap_or_default();
        name.trim_end_matches(".proto").to_owned()
    };
    files.sort_by_key(|file| ORDER.iter().position(|name| *name == stem(file)));
    for file in &files {
        let comments = comments(file);
        let about = |path: &[i32]| comments.get(path).cloned().unwrap_or_default();
        for (s, service) in (0..).zip(&file.service) {
            let _ = write!(page, "\n## {}\n\n{}\n\n", service.name(), about(&[6, s]));
            page.push_str("| call | takes | answers | what it does |\n|---|---|---|---|\n");
            for (m, method) in (0..).zip(&service.method) {
                let streams = |yes: bool| if yes { "stream of " } else { "" };
                let _ = writeln!(
                    page,
                    "| `{}` | {}{} | {}{} | {} |",
                    method.name(),
                    streams(method.client_streaming()),
                    link(method.input_type()),
                    streams(method.server_streaming()),
                    link(method.output_type()),
                    about(&[6, s, 2, m]).replace('|', "\\|")
                );
            }
        }
    }
    page.push_str("\n## Messages\n");
    for file in &files {
        let _ = write!(page, "\nOf `{}`:\n", file.name());
        let comments = comments(file);
        for (m, message) in (0..).zip(&file.message_type) {
            show_message(message, &[4, m], &comments, &mut page);
        }
        for (e, one) in (0..).zip(&file.enum_type) {
            show_enum(one, &[5, e], &comments, &mut page);
        }
    }
    page
}

fn show_message(message: &DescriptorProto, at: &[i32], comments: &Comments, page: &mut String) {
    let about = |path: &[i32]| comments.get(path).cloned().unwrap_or_default();
    let _ = write!(page, "\n### {}\n\n{}\n", message.name(), about(at));
    if !message.field.is_empty() {
        page.push_str("\n| field | type | meaning |\n|---|---|---|\n");
    }
    for (f, field) in (0..).zip(&message.field) {
        let _ = writeln!(
            page,
            "| `{}` = {} | {} | {} |",
            field.name(),
            field.number(),
            type_of(field, message),
            about(&[at, &[2, f]].concat()).replace('|', "\\|")
        );
    }
    for (n, nested) in (0..).zip(&message.nested_type) {
        if !nested.options.as_ref().is_some_and(|o| o.map_entry()) {
            show_message(nested, &[at, &[3, n]].concat(), comments, page);
        }
    }
    for (e, one) in (0..).zip(&message.enum_type) {
        show_enum(one, &[at, &[4, e]].concat(), comments, page);
    }
}

fn show_enum(one: &EnumDescriptorProto, at: &[i32], comments: &Comments, page: &mut String) {
    let about = |path: &[i32]| comments.get(path).cloned().unwrap_or_default();
    let _ = write!(page, "\n### {}\n\n{}\n\n", one.name(), about(at));
    page.push_str("| value | meaning |\n|---|---|\n");
    for (v, value) in (0..).zip(&one.value) {
        let _ = writeln!(
            page,
            "| `{}` = {} | {} |",
            value.name(),
            value.number(),
            about(&[at, &[2, v]].concat()).replace('|', "\\|")
        );
    }
}

fn type_of(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let entry = message.nested_type.iter().find(|nested| {
        field.type_name().rsplit('.').next() == Some(nested.name())
            && nested.options.as_ref().is_some_and(|o| o.map_entry())
    });
    if let Some(entry) = entry {
        let of = |at: usize| type_of(&entry.field[at], entry);
        return format!("map from {} to {}", of(0), of(1));
    }
    let name = match field.r#type() {
        Type::Message | Type::Enum => link(field.type_name()),
        Type::String => "string".to_owned(),
        Type::Bytes => "bytes".to_owned(),
        Type::Bool => "bool".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    let of_one = field.oneof_index.is_some() && !field.proto3_optional();
    match field.label() {
        Label::Repeated => format!("list of {name}"),
        _ if field.proto3_optional() => format!("{name}, may be unset"),
        _ if of_one => format!("{name}, one of several"),
        _ => name,
    }
}

fn link(type_name: &str) -> String {
    let name = type_name.rsplit('.').next().unwrap_or_default();
    format!("[{name}](#{})", name.to_lowercase())
}
