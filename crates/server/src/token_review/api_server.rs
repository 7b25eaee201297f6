//! The API server of a cluster.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Request, header};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::answer::{self, question};
use super::{Outcome, TokenReviewSettings};

/// Where TokenReviews are posted.
const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// Names kubeconfig files, with `:` between them.
const KUBECONFIG: &str = "KUBECONFIG";
/// Bytes of an answer. It repeats the token, and has some hundred of its own.
const MAX_BYTES: usize = 256 * 1024;
/// How long a connection may take to be made; the question's own time limit is shorter as a rule.
const CONNECT: Duration = Duration::from_secs(10);

/// Asks one cluster. Questions share its connections.
#[derive(Clone)]
pub(super) struct ApiServer {
    client: Client,
    audience: String,
}

impl ApiServer {
    /// The cluster that is configured. Nothing is sent yet.
    ///
    /// # Errors
    /// In words, when there is no cluster in the configuration, or it cannot be read.
    pub(super) async fn open(settings: &TokenReviewSettings) -> Result<Self, String> {
        let mut config = config(settings.kubeconfig.as_deref(), settings.context.as_deref()).await?;
        config.connect_timeout = Some(CONNECT);
        // Whoever waits is told to try again instead.
        config.default_retry = false;
        let host = config.cluster_url.clone();
        let client = Client::try_from(config).map_err(|error| format!("cannot ask the API server {host}: {error}"))?;
        tracing::info!(server = %host, audience = settings.audience, "service account tokens are proved by TokenReview");
        Ok(Self { client, audience: settings.audience.clone() })
    }

    /// What the cluster says of a token. Waits for as long as it takes.
    pub(super) async fn review(&self, token: &str) -> Outcome {
        match self.post(token).await {
            Ok(outcome) => outcome,
            Err(reason) => Outcome::Failed(reason.into()),
        }
    }

    // The client's own way to read an answer would log what it cannot read, and with that the token.
    async fn post(&self, token: &str) -> Result<Outcome, String> {
        let request = Request::post(PATH)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Body::from(question(token, &self.audience)))
            .map_err(|error| error.to_string())?;
        let response = self.client.send(request).await.map_err(|error| causes(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(|error| causes(&*error))?;
        Ok(answer::read(status, &body.to_bytes(), token, &self.audience))
    }
}

/// The configuration of the file, else of the files in `KUBECONFIG`, else of the pod that this runs in.
async fn config(file: Option<&Path>, context: Option<&str>) -> Result<Config, String> {
    let files = match file {
        Some(path) => vec![path.to_owned()],
        None => std::env::var_os(KUBECONFIG).map(|paths| named(&paths)).unwrap_or_default(),
    };
    if files.is_empty() {
        if let Some(context) = context {
            return Err(format!("there is no kubeconfig that could have the context \"{context}\""));
        }
        return Config::incluster().map_err(|error| {
            let why = causes(&error);
            format!(
                "there is no cluster that could be asked about tokens: no kubeconfig (--kubeconfig, {KUBECONFIG}), and not \
                 in a pod: {why}"
            )
        });
    }
    let kubeconfig = joined(&files)?;
    let has = |name: &str| kubeconfig.contexts.iter().any(|context| context.name == name);
    let contexts = contexts(&kubeconfig);
    match context.or(kubeconfig.current_context.as_deref()).filter(|name| !name.is_empty()) {
        Some(name) if has(name) => {}
        Some(name) => return Err(format!("the kubeconfig has no context \"{name}\": {contexts}")),
        None => return Err(format!("the kubeconfig has no current context; say --kube-context: {contexts}")),
    }
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| format!("the kubeconfig cannot be used: {}", causes(&error)))
}

/// What several files say; of what two define the first counts, as in kubectl.
fn joined(files: &[PathBuf]) -> Result<Kubeconfig, String> {
    let mut joined = Kubeconfig::default();
    for file in files {
        let cannot = |error: KubeconfigError| {
            let why = match error {
                // The library's own words show the text, and that has keys and tokens in it.
                KubeconfigError::Parse(error) => match error.location() {
                    Some(at) => format!("line {}, column {} is no YAML of a kubeconfig", at.line(), at.column()),
                    None => "it is no YAML of a kubeconfig".to_owned(),
                },
                other => causes(&other),
            };
            format!("cannot read the kubeconfig \"{}\": {why}", file.display())
        };
        joined = Kubeconfig::read_from(file).and_then(|read| joined.merge(read)).map_err(cannot)?;
    }
    Ok(joined)
}

/// The files that a list of paths names, as in `PATH`.
fn named(paths: &OsStr) -> Vec<PathBuf> {
    std::env::split_paths(paths).filter(|path| !path.as_os_str().is_empty()).collect()
}

/// The contexts that there are, for whoever named none of them.
fn contexts(kubeconfig: &Kubeconfig) -> String {
    let names: Vec<_> = kubeconfig.contexts.iter().map(|context| format!("\"{}\"", context.name)).collect();
    if names.is_empty() { "it has no contexts".to_owned() } else { format!("it has {}", names.join(", ")) }
}

/// An error with what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
