//! Makes changes, and says when.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::clock::{self, Nanos};
use crate::scenario::Trigger;

/// How long an HTTP server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

impl Trigger {
    /// Makes the change with this number; returns the time just before its last step.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub(crate) fn pull(&self, number: u32) -> Result<Nanos, String> {
        match self {
            Self::Rename { file, from } => rename(file, from, number as usize),
            Self::Run(command) => run(command, number),
            Self::Post { url, body } => {
                let number = number.to_string();
                post(&url.replace("{}", &number), &body.replace("{}", &number))
            }
        }
    }
}

/// Replaces the file by the next copy in turn that is different from it: the same again would be no change.
fn rename(file: &Path, from: &[PathBuf], number: usize) -> Result<Nanos, String> {
    let name = file.file_name().ok_or_else(|| format!("\"{}\" names no file", file.display()))?;
    // A watcher of the directory takes no file whose name begins with a dot for one of its own.
    let fresh = file.with_file_name(format!(".{}.swarm", name.to_string_lossy()));
    let read = |path: &Path| fs::read(path).map_err(|error| format!("could not read \"{}\": {error}", path.display()));
    let present = read(file)?;
    let mut next = Err(format!("every file that would replace \"{}\" is equal to it", file.display()));
    for path in from.iter().cycle().skip(number % from.len().max(1)).take(from.len()) {
        let content = read(path)?;
        if content != present {
            next = Ok(content);
            break;
        }
    }
    fs::write(&fresh, next?).map_err(|error| format!("could not write \"{}\": {error}", fresh.display()))?;
    let begun = clock::now();
    fs::rename(&fresh, file).map_err(|error| format!("could not replace \"{}\": {error}", file.display()))?;
    Ok(begun)
}

fn run(command: &str, number: u32) -> Result<Nanos, String> {
    let begun = clock::now();
    let output = Command::new("/bin/sh").args(["-c", command]).env("CHANGE", number.to_string()).output();
    let output = output.map_err(|error| format!("could not run \"{command}\": {error}"))?;
    if output.status.success() {
        return Ok(begun);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("\"{command}\" ended with {}: {}", output.status, words.trim()))
}

fn post(url: &str, body: &str) -> Result<Nanos, String> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let failed = |error: std::io::Error| format!("could not POST to {url}: {error}");
    let mut stream = TcpStream::connect(host).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let begun = clock::now();
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') {
        return Ok(begun);
    }
    Err(format!("POST to {url} was answered with \"{}\"", answer.lines().next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_file_is_replaced_by_copies_in_turn_and_never_by_its_equal() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("mesh.yaml"), "first").unwrap();
        fs::write(path("a"), "first").unwrap();
        fs::write(path("b"), "second").unwrap();
        let trigger = Trigger::Rename { file: path("mesh.yaml"), from: vec![path("a"), path("b")] };
        for (number, expected) in [(0, "second"), (1, "first"), (2, "second"), (3, "first"), (3, "second")] {
            trigger.pull(number).unwrap();
            assert_eq!(fs::read_to_string(path("mesh.yaml")).unwrap(), expected, "change {number}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "nothing is left behind");
        let error =
            |from: &str| Trigger::Rename { file: path("mesh.yaml"), from: vec![path(from)] }.pull(0).unwrap_err();
        assert!(error("b").contains("equal to it"), "{}", error("b"));
        assert!(error("gone").contains("gone"), "{}", error("gone"));
    }

    #[test]
    fn a_command_knows_its_number_and_may_fail() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("out");
        Trigger::Run(format!("echo $CHANGE > '{}'", file.display())).pull(7).unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), "7\n");
        let error = Trigger::Run("echo no >&2; exit 3".to_owned()).pull(0).unwrap_err();
        assert!(error.contains("exit status: 3") && error.contains("no"), "{error}");
    }

    #[test]
    fn a_post_says_which_change_it_is_and_its_refusal_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for status in ["204 No Content", "500 Oh"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                let mut first = String::new();
                lines.read_line(&mut first).unwrap();
                assert_eq!(first, "POST /change/3 HTTP/1.1\r\n");
                let mut line = String::new();
                while line != "\r\n" {
                    line.clear();
                    lines.read_line(&mut line).unwrap();
                }
                let mut body = [0; 4];
                lines.read_exact(&mut body).unwrap();
                assert_eq!(&body, b"n: 3");
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).unwrap();
            }
        });
        let trigger = Trigger::Post { url: format!("http://{address}/change/{{}}"), body: "n: {}".to_owned() };
        trigger.pull(3).unwrap();
        let error = trigger.pull(3).unwrap_err();
        assert!(error.contains("500 Oh"), "{error}");
        server.join().unwrap();
    }
}
