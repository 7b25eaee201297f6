//! Transcripts: commands and replies, one file per cluster of rules. Set `UPDATE_TRANSCRIPTS=1` to write what the
//! stream replies now into the files, and review the difference like code.
//!
//! A file is a list of blocks: comments (`#`), one command, its reply (indented). Commands:
//!
//! - `stream sotw|delta [only TYPE] [ack-wait SECONDS] [max-names N] [max-bytes N]`: a new stream.
//! - `publish TYPE NAME VERSION [ttl SECONDS] [meets WHO,...] [as ALIAS ...] [-> TYPE:NAME ...]; TYPE NAME -; ...`: changes
//!   the mesh; `-` removes.
//!   Prints nothing. With `parts NAME=VERSION ...` before the arrow the resource is made of parts, each from the object
//!   `object/` and its name.
//! - `ask TYPE [node=ID[+FEATURE ...]] [NAME ...] [nonce N] [version V] [error TEXT]`: a state-of-the-world request;
//!   the version `sent` is that of the last response.
//! - `ask TYPE [+NAME ...] [-NAME ...] [held NAME@V ...] [nonce N] [error TEXT]`: a delta request. `NAME@V` is the version of
//!   the published resource `NAME` whose text is `V`.
//! - `sleep SECONDS`, `summary`, `holdings`.
//!
//! After each command the stream is polled until it is silent; every response and outcome is a line of the reply.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use proto::pb::google::rpc::Status;
use snapshot::{Cell, Layer, Origin, Part, Parts, Snapshot, Version};
use xds::{HeldBack, HoldingState, Outcome, Request, Service, Settings, Stream, Variant};

#[test]
fn every_transcript_is_what_the_stream_replies() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut wrong = String::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let played = Player::new().play(&text);
        if played == text {
            continue;
        }
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            fs::write(file, played).unwrap();
            continue;
        }
        writeln!(wrong, "{}:", file.file_name().unwrap().display()).unwrap();
        let differing = text.lines().zip(played.lines()).enumerate().find(|(_, (a, b))| a != b);
        match differing {
            Some((at, (a, b))) => writeln!(wrong, "  line {}: expected\n    {a}\n  but got\n    {b}", at + 1).unwrap(),
            None => writeln!(wrong, "  one is longer:\n{played}").unwrap(),
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(files.len() >= 10, "transcripts are missing");
}

#[test]
fn every_transcript_that_the_list_of_rules_names_speaks_of_that_rule() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = fs::read_to_string(crate_folder.join("RULES.md")).unwrap();
    let mut seen = Vec::new();
    for row in rules.lines().filter(|line| line.starts_with("| P-") || line.starts_with("| G-")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        for file in cells[3].split('`').filter(|word| word.ends_with(".txt")) {
            let text = fs::read_to_string(crate_folder.join("tests/transcripts").join(file)).unwrap();
            assert!(text.contains(cells[1]), "{file} does not speak of {}", cells[1]);
        }
        seen.push(cells[1].to_owned());
    }
    let protocol = (1..=81).map(|number| format!("P-{number:02}"));
    let all: Vec<_> = protocol.chain((1..=12).map(|number| format!("G-{number:02}"))).collect();
    assert_eq!(seen, all, "every rule has its row, in order");
}

struct Player {
    stream: Stream,
    variant: Variant,
    service: Service,
    layer: Arc<Layer>,
    start: Instant,
    now: Instant,
    closed: bool,
}

impl Player {
    fn new() -> Self {
        let now = Instant::now();
        let (variant, service) = (Variant::StateOfTheWorld, Service::Aggregated);
        let stream = Stream::new(variant, service, Settings::default());
        Self { stream, variant, service, layer: Layer::new(), start: now, now, closed: false }
    }

    fn play(mut self, text: &str) -> String {
        let mut played = String::new();
        for line in text.lines() {
            if line.starts_with(' ') {
                continue;
            }
            played.push_str(line);
            played.push('\n');
            if !line.is_empty() && !line.starts_with('#') {
                let reply = self.command(line);
                reply.lines().for_each(|line| writeln!(played, "  {line}").unwrap());
            }
        }
        played
    }

    fn command(&mut self, line: &str) -> String {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut reply = String::new();
        match verb {
            "stream" => self.open(rest),
            "publish" => self.publish(rest),
            "sleep" => {
                self.now += Duration::from_secs(rest.parse().unwrap());
                self.stream.handle_timeout(self.now);
            }
            "ask" => {
                let request = self.request(rest);
                if let Err(refusal) = self.stream.handle_request(self.now, request) {
                    self.closed = true;
                    writeln!(reply, "closed {:?}: {refusal}", refusal.code).unwrap();
                }
            }
            "summary" => self.summary(&mut reply),
            "holdings" => self.holdings(&mut reply),
            other => panic!("unknown command {other:?} in {line:?}"),
        }
        if !self.closed {
            self.drain(&mut reply);
        }
        reply
    }

    fn open(&mut self, rest: &str) {
        let mut words = rest.split(' ');
        self.variant = match words.next().unwrap() {
            "sotw" => Variant::StateOfTheWorld,
            "delta" => Variant::Delta,
            other => panic!("unknown variant {other:?}"),
        };
        self.service = Service::Aggregated;
        let mut settings = Settings::default();
        while let Some(word) = words.next() {
            let value = words.next().unwrap();
            match word {
                "only" => self.service = Service::Only(kind(value)),
                "ack-wait" => settings.acknowledgement_wait = Duration::from_secs(value.parse().unwrap()),
                "max-names" => settings.max_names = value.parse().unwrap(),
                "max-bytes" => settings.max_response_bytes = value.parse().unwrap(),
                other => panic!("unknown setting {other:?}"),
            }
        }
        self.closed = false;
        self.stream = Stream::new(self.variant, self.service, settings);
        if self.layer.generation() > 0 {
            self.stream.handle_snapshot(self.now, Snapshot::new([self.layer.clone()]));
        }
    }

    fn publish(&mut self, rest: &str) {
        let mut edit = self.layer.edit();
        for change in rest.split(';').map(str::trim).filter(|change| !change.is_empty()) {
            let words: Vec<_> = change.split(' ').collect();
            let (resource_type, name, version) = (kind(words[0]), words[1], words[2]);
            if version == "-" {
                edit.remove(resource_type, name);
                continue;
            }
            if let Some(at) = words.iter().position(|word| *word == "parts") {
                edit.set(composite(resource_type, &value(name, version), name, &words[at + 1..]));
                continue;
            }
            let ttl = words.iter().position(|word| *word == "ttl").map(|at| words[at + 1].parse().unwrap());
            let arrow = words.iter().position(|word| *word == "->").unwrap_or(words.len());
            let alias = words.iter().position(|word| *word == "as").unwrap_or(arrow);
            let aliases = words[..arrow].iter().skip(alias + 1).map(|alias| (*alias).into());
            let references = words.iter().skip(arrow + 1).map(|word| {
                let (to, name) = word.split_once(':').unwrap();
                (kind(to), name.into())
            });
            let cell = Cell::new(resource_type, name.into(), value(name, version).as_bytes())
                .referring_to(references)
                .also_known_as(aliases);
            let meets = words.iter().position(|word| *word == "meets").map(|at| words[at + 1].split(','));
            let cell = match meets {
                Some(identities) => cell.meeting(identities.map(|identity| identity.into())),
                None => cell,
            };
            edit.set(match ttl {
                Some(seconds) => cell.with_ttl(Duration::from_secs(seconds)),
                None => cell,
            });
        }
        self.layer = edit.finish();
        self.stream.handle_snapshot(self.now, Snapshot::new([self.layer.clone()]));
    }

    fn request(&self, rest: &str) -> Request {
        let (words, error) = match rest.split_once(" error ") {
            Some((words, text)) => (words, Some(Status { code: 13, message: text.into(), details: Vec::new() })),
            None => (rest, None),
        };
        let mut words = words.split(' ').peekable();
        let type_url = match words.next().unwrap() {
            "-" => String::new(),
            url if url.contains('.') => url.to_owned(),
            short => kind(short).type_url().to_owned(),
        };
        let mut node = None;
        let (mut nonce, mut version_info) = (String::new(), String::new());
        let (mut names, mut added, mut dropped, mut held) = (vec![], vec![], vec![], vec![]);
        while let Some(word) = words.next() {
            if let Some(id) = word.strip_prefix("node=") {
                let mut parts = id.split('+');
                let id: String = parts.next().unwrap().into();
                let agent = if id.starts_with("grpc") { "gRPC C-core" } else { "envoy" };
                let client_features = parts.map(str::to_owned).collect();
                node = Some(Node { id, user_agent_name: agent.into(), client_features, ..Node::default() });
            } else if word == "nonce" {
                nonce = words.next().unwrap().into();
            } else if word == "version" {
                version_info = words.next().unwrap().into();
                if version_info == "sent" {
                    version_info = self.sent_version(&type_url);
                }
            } else if word == "held" {
                for (name, text) in words.by_ref().map(|word| word.split_once('@').unwrap()) {
                    held.push((name.to_owned(), Version::of(value(name, text).as_bytes()).to_string()));
                }
            } else if self.variant == Variant::StateOfTheWorld {
                names.push(word.to_owned());
            } else if let Some(name) = word.strip_prefix('+') {
                added.push(name.to_owned());
            } else {
                dropped.push(word.strip_prefix('-').unwrap().to_owned());
            }
        }
        match self.variant {
            Variant::StateOfTheWorld => Request::StateOfTheWorld(DiscoveryRequest {
                node,
                type_url,
                version_info,
                resource_names: names,
                response_nonce: nonce,
                error_detail: error,
                ..DiscoveryRequest::default()
            }),
            Variant::Delta => Request::Delta(DeltaDiscoveryRequest {
                node,
                type_url,
                resource_names_subscribe: added,
                resource_names_unsubscribe: dropped,
                initial_resource_versions: held.into_iter().collect(),
                response_nonce: nonce,
                error_detail: error,
                ..DeltaDiscoveryRequest::default()
            }),
        }
    }

    fn sent_version(&self, type_url: &str) -> String {
        let summary = self.stream.summary().into_iter().find(|s| s.resource_type.type_url() == type_url).unwrap();
        summary.sent.unwrap().to_string()
    }

    fn drain(&mut self, reply: &mut String) {
        loop {
            let response = self.stream.poll_response(self.now);
            while let Some(outcome) = self.stream.poll_outcome() {
                if let Some(line) = describe(&outcome) {
                    writeln!(reply, "{line}").unwrap();
                }
            }
            let Some(response) = response else { break };
            let mut bytes = response.head.to_vec();
            response.body.pieces().iter().for_each(|piece| bytes.extend_from_slice(piece));
            writeln!(reply, "{}", self.response(response.resource_type, &bytes)).unwrap();
        }
    }

    fn response(&self, own: ResourceType, bytes: &[u8]) -> String {
        let mut line = format!("> {}", own.short());
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        match self.variant {
            Variant::StateOfTheWorld => {
                let response = DiscoveryResponse::decode(bytes).unwrap();
                assert_eq!(response.type_url, own.type_url());
                assert_eq!(response.control_plane.unwrap().identifier, "pointsman");
                write!(line, " #{}", response.nonce).unwrap();
                response.resources.iter().for_each(|any| {
                    if any.type_url == own.type_url() {
                        write!(line, " {}", text(&any.value)).unwrap();
                        return;
                    }
                    let wrapped = Resource::decode(&*any.value).unwrap();
                    let inner = wrapped.resource.unwrap();
                    assert_eq!(inner.type_url, own.type_url());
                    write!(line, " {} for {} s", text(&inner.value), wrapped.ttl.unwrap().seconds).unwrap();
                });
                for error in response.resource_errors {
                    let (name, status) = (error.resource_name.unwrap().name, error.error_detail.unwrap());
                    write!(line, " error {name}: {} {}", status.code, status.message).unwrap();
                }
            }
            Variant::Delta => {
                let response = DeltaDiscoveryResponse::decode(bytes).unwrap();
                assert_eq!(response.type_url, own.type_url());
                assert_eq!(response.control_plane.unwrap().identifier, "pointsman");
                write!(line, " #{}", response.nonce).unwrap();
                for resource in response.resources {
                    match resource.resource {
                        Some(any) => {
                            assert_eq!(resource.version, Version::of(&any.value).to_string());
                            write!(line, " {}", text(&any.value)).unwrap();
                            if !resource.aliases.is_empty() {
                                write!(line, " alias {:?}", resource.aliases).unwrap();
                            }
                            resource.ttl.iter().for_each(|ttl| write!(line, " for {} s", ttl.seconds).unwrap());
                        }
                        None if resource.ttl.is_some() => write!(line, " {} is still there", resource.name).unwrap(),
                        None => {
                            write!(line, " {} without a body, alias {:?}", resource.name, resource.aliases).unwrap()
                        }
                    }
                }
                response.removed_resources.iter().for_each(|name| write!(line, " -{name}").unwrap());
            }
        }
        line
    }

    fn summary(&self, reply: &mut String) {
        for summary in self.stream.summary() {
            let sent = summary.sent.is_some();
            let current = sent && summary.sent == summary.accepted;
            writeln!(
                reply,
                "{}: wildcard {}, names {}, sent {sent}, accepted {}, unacknowledged {}{}",
                summary.resource_type,
                summary.wildcard,
                summary.names,
                if current {
                    "the same"
                } else if summary.accepted.is_some() {
                    "an older one"
                } else {
                    "none"
                },
                summary.unacknowledged,
                summary.last_rejection.map(|r| format!(", rejected #{}: {}", r.nonce, r.message)).unwrap_or_default(),
            )
            .unwrap();
            for waiting in summary.waiting {
                let since = waiting.since.saturating_duration_since(self.start).as_secs();
                writeln!(reply, "  since {since} s {waiting}").unwrap();
            }
        }
        match self.stream.poll_timeout() {
            Some(at) => writeln!(reply, "next deadline at {} s", at.saturating_duration_since(self.start).as_secs()),
            None => writeln!(reply, "no deadline"),
        }
        .unwrap();
    }

    fn holdings(&self, reply: &mut String) {
        for holding in self.stream.holdings() {
            let state = match &holding.state {
                HoldingState::Sent => "sent".to_owned(),
                HoldingState::Accepted => "accepted".to_owned(),
                HoldingState::Rejected { message, verdict, .. } => {
                    let in_force = holding.in_force.as_ref().map_or("nothing".into(), content);
                    format!("rejected, {}, {in_force} in force: {message}", format!("{verdict:?}").to_lowercase())
                }
            };
            let cell = &holding.cell;
            let reduced = if holding.stands_for == cell.version() { "" } else { " stands for what is published" };
            writeln!(reply, "{} {} {state}{reduced}", cell.resource_type(), content(cell)).unwrap();
            for held in &holding.refused_parts {
                writeln!(reply, "  but {}", held_back(held)).unwrap();
            }
        }
    }
}

fn content(cell: &Arc<Cell>) -> String {
    String::from_utf8(cell.value().to_vec()).unwrap()
}

fn held_back(held: &HeldBack) -> String {
    let part = held.part.as_ref().map(|part| format!(" part {part}")).unwrap_or_default();
    let origins = held.origins.iter().map(|origin| format!(" of {}", origin.object)).collect::<String>();
    let verdict = format!("{:?}", held.verdict).to_lowercase();
    format!("{} {}{part}{origins} {verdict}: {}", held.resource_type, held.name, held.message)
}

/// Sent and Subscribed are seen in the responses and in summaries.
fn describe(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Sent { .. } | Outcome::Subscribed { .. } => None,
        Outcome::Identified(node) => Some(format!("node {}", node.id)),
        Outcome::ParametersChanged(node) => Some(format!("parameters of {}", node.id)),
        Outcome::UnknownType { type_url } => Some(format!("unknown type {type_url}")),
        Outcome::Accepted { resource_type, nonce, .. } => Some(format!("accepted {resource_type} #{nonce}")),
        Outcome::Rejected(r) => {
            let suspects: Vec<_> = r.suspects.iter().map(|name| &**name).collect();
            Some(format!("rejected {} #{} suspects {suspects:?}: {}", r.resource_type, r.nonce, r.message))
        }
        Outcome::Isolated(held) => Some(format!("isolated {}", held_back(held))),
        Outcome::Cleared(held) => Some(format!("cleared {}", held_back(held))),
        Outcome::SearchGivenUp { resource_type, untried } => {
            Some(format!("search in {resource_type} given up, {untried} untried"))
        }
        Outcome::Waiting { resource_type, count, wait } => {
            Some(format!("{count} {resource_type} wait, first {wait:?}"))
        }
        Outcome::WaitExpired { resource_type, count, wait } => {
            Some(format!("{count} {resource_type} waited enough, first {wait:?}"))
        }
        Outcome::Overdue { resource_type, nonce } => Some(format!("overdue {resource_type} #{nonce}")),
    }
}

fn composite(resource_type: ResourceType, head: &str, name: &str, words: &[&str]) -> Cell {
    let mut parts = Parts::default();
    for (part, version) in words.iter().map(|word| word.split_once('=').unwrap()) {
        let origin = Origin { object: format!("object/{part}").into(), generation: 1 };
        let text = format!(" {}", value(part, version));
        parts.set(part.into(), Part::new(text.into()).from_objects([origin]));
    }
    Cell::composite(resource_type, name.into(), head.to_owned().into(), parts)
}

fn value(name: &str, version: &str) -> String {
    format!("{name}@{version}")
}

fn kind(short: &str) -> ResourceType {
    ResourceType::ALL.into_iter().find(|kind| kind.short() == short).unwrap_or_else(|| panic!("no type {short:?}"))
}
