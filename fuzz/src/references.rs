//! References inside texts, through the front door: the text is the value of an environment variable.

use std::fmt::Write as _;

use plumb_blueprint::{
    Code, Diagnostics, Options, Reference, Segment, Severity, SourceFile, Text, parse,
};

use crate::problems;

const MANIFEST: &str =
    "kind: Workspace\nname: shop\nvars: { domain: example.com, odd: 'a$${b}c' }\n";
const MACHINES: &str =
    "kind: Machine\nname: web-1\nlabels: { role: web, a.b: c }\naddress: { private: 10.0.0.10 }\n";

/// The text in double quotes, with everything but plain ASCII escaped, so that YAML hands on exactly this text.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            _ => write!(out, "\\U{:08X}", c as u32).expect("a String takes everything"),
        }
    }
    out.push('"');
    out
}

fn files(text: &str) -> Vec<SourceFile> {
    let app = format!(
        "kind: App\nname: x\nmachines: all\nrun: ./x\nports: {{ http: auto, admin: 8080 }}\nenv:\n  X: {}\n",
        quoted(text)
    );
    let file = |path: &str, text: &str| SourceFile {
        path: path.to_owned(),
        text: text.as_bytes().to_vec(),
    };
    vec![
        file("plumb.yaml", MANIFEST),
        file("machines.yaml", MACHINES),
        file("x.yaml", &app),
    ]
}

fn read(text: &str) -> Result<Text, Diagnostics> {
    let files = files(text);
    match parse(&files, &Options::default()) {
        Ok(set) => {
            problems::check(&set.warnings, &files);
            let app = set.apps.into_values().next().expect("the app is there");
            Ok(app.env.get("X").expect("the variable is there").clone())
        }
        Err(found) => {
            problems::check(&found, &files);
            Err(found)
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace("${", "$${")
}

fn reference(reference: &Reference) -> String {
    match reference {
        Reference::MachineName => "machine.name".to_owned(),
        Reference::MachineLabel(label) => format!("machine.labels.{label}"),
        Reference::MachineAddress => "machine.address".to_owned(),
        Reference::AppUrl(app) => format!("app.{app}.url"),
        Reference::AppHost(app) => format!("app.{app}.host"),
        Reference::AppPort(app, port) => format!("app.{app}.ports.{port}"),
        Reference::ServiceUrl(service) => format!("service.{service}.url"),
        Reference::ServiceHost(service) => format!("service.{service}.host"),
        Reference::ServicePort(service) => format!("service.{service}.port"),
        Reference::ServiceUser(service) => format!("service.{service}.user"),
        Reference::ServiceDatabase(service) => format!("service.{service}.database"),
        Reference::ServicePassword(_) => panic!("a password was written"),
        Reference::Release => "release".to_owned(),
        Reference::Commit => "commit".to_owned(),
    }
}

/// What one would write to get this text.
fn written(text: &Text) -> String {
    text.iter()
        .map(|segment| match segment {
            Segment::Literal(text) => escaped(text),
            Segment::Ref(it) => format!("${{{}}}", reference(it)),
        })
        .collect()
}

/// Holds all of it for one input.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let literal = match text.as_ref() {
        "" => vec![],
        text => vec![Segment::Literal(text.to_owned())],
    };
    match read(&escaped(&text)) {
        Ok(read) => assert_eq!(read, literal, "an escaped text is another one"),
        Err(found) => {
            // The operating system takes no NUL.
            assert!(text.contains('\0'), "an escaped text is refused: {found:?}");
            assert!(
                found
                    .items
                    .iter()
                    .filter(|problem| problem.severity == Severity::Error)
                    .all(|problem| problem.code == Code::BadText),
                "{found:?}"
            );
        }
    }
    if let Ok(read_text) = read(&text) {
        let joined = read_text
            .windows(2)
            .all(|two| !matches!(two, [Segment::Literal(_), Segment::Literal(_)]));
        let full = !read_text.contains(&Segment::Literal(String::new()));
        assert!(joined && full, "{read_text:?}");
        let again = written(&read_text);
        assert_eq!(read(&again).as_ref(), Ok(&read_text), "{again:?}");
    }
}
