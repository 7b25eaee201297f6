//! The API server of a cluster.

use std::path::Path;
use std::time::Duration;

use http::{Request, header};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::answer::{self, question};
use super::{Outcome, TokenReviewSettings};

/// Where TokenReviews are posted.
const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
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
    let found = match file {
        Some(path) => Some(
            Kubeconfig::read_from(path)
                .map_err(|error| format!("cannot read the kubeconfig \"{}\": {}", path.display(), causes(&error)))?,
        ),
        None => Kubeconfig::from_env()
            .map_err(|error| format!("cannot read the files that KUBECONFIG names: {}", causes(&error)))?,
    };
    let Some(kubeconfig) = found else {
        if let Some(context) = context {
            return Err(format!("there is no kubeconfig that could have the context \"{context}\""));
        }
        return Config::incluster().map_err(|error| {
            let why = causes(&error);
            format!("there is no cluster that could be asked about tokens: no kubeconfig, and not in a pod: {why}")
        });
    };
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| format!("the kubeconfig cannot be used: {}", causes(&error)))
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
