//! Service account tokens that an API server is asked about.

use std::time::{Duration, Instant};

use identity::Pod;
use rcgen::KeyPair;
use server::{TlsSettings, TokenReviewSettings};
use tempfile::TempDir;
use testkit::api_server::{ApiServer, Says};
use testkit::wire::{ResourceType, Wire, node};
use tonic::Code;

use crate::fixture::{NODE, SOON, eventually};
use crate::identity::{Cluster, Guarded, OTHER_NODE, clusters, create, id_of, request};

/// So many streams that begin with one bad token, on so many connections.
const STREAMS: usize = 10_000;
const CONNECTIONS: usize = 250;

/// A server that asks an API server, and the cluster whose tokens that knows.
pub struct Reviewed {
    pub server: Guarded,
    pub api: ApiServer,
    pub cluster: Cluster,
    // Held for its drop.
    _files: TempDir,
}

impl Reviewed {
    async fn start() -> Self {
        Self::start_with(|_, _| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut TlsSettings, &mut TokenReviewSettings)) -> Self {
        let (api, files) = (ApiServer::start().unwrap(), TempDir::new().unwrap());
        let kubeconfig = files.path().join("kubeconfig");
        std::fs::write(&kubeconfig, api.kubeconfig()).unwrap();
        let server = Guarded::start_with(|settings| {
            let mut review =
                TokenReviewSettings { kubeconfig: Some(kubeconfig), ..TokenReviewSettings::new("istio-ca") };
            change(settings, &mut review);
            settings.token_review = Some(review);
        });
        Self { server: server.await, api, cluster: Cluster::new(), _files: files }
    }

    /// A token of `namespace:name` that the API server knows.
    pub fn known(&self, account: &str) -> String {
        let token = self.cluster.token(account, "istio-ca");
        self.api.say_of(&token, proves(account));
        token
    }

    async fn wire(&self, token: &str) -> Wire {
        self.server.wire().await.with_token(token).unwrap()
    }

    /// How a stream with this token ends, if it does.
    async fn code(&self, token: &str) -> Option<Code> {
        let (code, message) = clusters(&self.wire(token).await, NODE).await.err()?;
        assert!(!message.contains(token), "{message}");
        Some(code)
    }

    pub async fn reviews(&self, outcome: &str) -> f64 {
        let name = format!("pointsman_token_reviews{{outcome=\"{outcome}\"}}");
        self.server.running.metric(&name).await.unwrap_or(0.0)
    }
}

fn proves(account: &str) -> Says {
    Says::Proves {
        user: format!("system:serviceaccount:{account}"),
        audiences: vec!["istio-ca".to_owned()],
        pod: Some(("client-1".to_owned(), "11-22".to_owned())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_a_token_is_the_api_server_says() {
    let reviewed = Reviewed::start().await;
    let token = reviewed.known("default:client");
    let wire = reviewed.wire(&token).await;
    assert!(clusters(&wire, NODE).await.unwrap() > 0);
    assert_eq!(clusters(&wire, OTHER_NODE).await.unwrap_err().0, Code::PermissionDenied);
    // Nobody else's, whatever the token claims.
    let vault = reviewed.cluster.token("default:client", "istio-ca");
    reviewed.api.say_of(&vault, proves("bank:vault"));
    assert_eq!(reviewed.code(&vault).await, Some(Code::PermissionDenied));
    assert!(clusters(&reviewed.wire(&vault).await, OTHER_NODE).await.is_ok());
    // A call of another service is answered when the answer is there.
    let other = reviewed.known("default:client");
    let key = KeyPair::generate().unwrap();
    let chain = create(&reviewed.wire(&other).await, &request(&key, "spiffe://a/ns/b/sa/c")).await.unwrap();
    assert_eq!(id_of(&chain[0]).to_string(), "spiffe://cluster.local/ns/default/sa/client");
    let audit = std::fs::read_to_string(reviewed.server.state.path().join("audit/issued.jsonl")).unwrap();
    let entry: identity::Issuance = serde_json::from_str(audit.lines().next().unwrap()).unwrap();
    assert_eq!(entry.pod, Some(Pod { name: "client-1".to_owned(), uid: "11-22".to_owned() }));
    assert!(!audit.contains(&other));
    assert_eq!((reviewed.api.asked(), reviewed.reviews("proved").await), (3, 3.0), "once for each token");
    assert_eq!(reviewed.server.running.metric("pointsman_token_review_seconds_count").await, Some(3.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_by_the_api_server_is_refused() {
    let reviewed = Reviewed::start().await;
    let key = KeyPair::generate().unwrap();
    let user = |user: &str, audience: &str| Says::Proves {
        user: user.to_owned(),
        audiences: vec![audience.to_owned()],
        pod: None,
    };
    let answers = [
        Says::Refuses("[invalid bearer token, Token has been invalidated]".to_owned()),
        user("system:serviceaccount:default:client", "vault"),
        user("admin", "istio-ca"),
        user("system:serviceaccount:default", "istio-ca"),
        Says::Proves { user: "system:serviceaccount:default:client".to_owned(), audiences: Vec::new(), pod: None },
    ];
    for says in answers {
        let token = reviewed.cluster.token("default:client", "istio-ca");
        reviewed.api.say_of(&token, says.clone());
        assert_eq!(reviewed.code(&token).await, Some(Code::Unauthenticated), "{says:?}");
        let refused = create(&reviewed.wire(&token).await, &request(&key, "spiffe://a/ns/b/sa/c")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{says:?}");
    }
    assert_eq!((reviewed.api.asked(), reviewed.reviews("refused").await), (5, 5.0));
    // What could prove nothing whatever is said of it is not worth a question.
    let over = reviewed.cluster.token_for("default:client", "istio-ca", -120);
    for token in ["junk", "a.b.c", &reviewed.cluster.token("default:client", "vault"), &over] {
        reviewed.api.say_of(token, proves("default:client"));
        assert_eq!(reviewed.code(token).await, Some(Code::Unauthenticated), "{token}");
    }
    assert_eq!(reviewed.api.asked(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_counts_for_a_short_while_and_not_beyond_the_tokens_end() {
    let kept = Duration::from_secs(6);
    let reviewed = Reviewed::start_with(|_, review| review.proof_kept = kept).await;
    let token = reviewed.known("default:client");
    let begun = Instant::now();
    assert_eq!(reviewed.code(&token).await, None);
    let withdrawn = Says::Refuses("[invalid bearer token, Token has been invalidated]".to_owned());
    reviewed.api.say_of(&token, withdrawn.clone());
    let (again, asked) = (reviewed.code(&token).await, reviewed.api.asked());
    // A slow machine may be there after the proof is over.
    if begun.elapsed() < kept {
        assert_eq!((again, asked), (None, 1), "for a short while");
    }
    eventually(|| reviewed.code(&token), |code| *code == Some(Code::Unauthenticated)).await;
    assert_eq!(reviewed.api.asked(), 2);

    let reviewed = Reviewed::start().await;
    let token = reviewed.cluster.token_for("default:client", "istio-ca", 6);
    reviewed.api.say_of(&token, proves("default:client"));
    assert_eq!(reviewed.code(&token).await, None);
    reviewed.api.say_of(&token, withdrawn);
    eventually(|| reviewed.code(&token), |code| *code == Some(Code::Unauthenticated)).await;
    assert_eq!(reviewed.api.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_away_nobody_new_is_let_in_and_who_was_proved_goes_on() {
    let mut reviewed = Reviewed::start_with(|_, review| review.proof_kept = Duration::from_secs(10)).await;
    let (known, new) = (reviewed.known("default:client"), reviewed.known("default:client"));
    let wire = reviewed.wire(&known).await;
    let mut stream = wire.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let first = stream.next(SOON).await.unwrap();
    stream.ack(&first).await;
    reviewed.api.stop();
    assert_eq!(reviewed.code(&new).await, Some(Code::Unavailable));
    assert_eq!(reviewed.code(&known).await, None, "a proof goes on to its end");
    assert_eq!(reviewed.server.running.get("/readyz").await.0, 200);
    eventually(|| reviewed.code(&known), |code| *code == Some(Code::Unavailable)).await;
    let key = KeyPair::generate().unwrap();
    let refused = create(&reviewed.wire(&known).await, &request(&key, "spiffe://a/ns/b/sa/c")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    // Who is connected stays so.
    reviewed.server.running.apply(&crate::fixture::RATINGS.replace("10.1.0.2", "10.1.0.3")).await;
    assert!(!stream.next(SOON).await.unwrap().resources.is_empty());
    reviewed.api.restart().unwrap();
    eventually(|| reviewed.code(&new), Option::is_none).await;
    eventually(|| reviewed.code(&known), Option::is_none).await;
    assert!(reviewed.reviews("failed").await >= 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_does_not_answer_is_given_up_and_all_who_wait_have_asked_once() {
    let reviewed = Reviewed::start_with(|_, review| review.patience = Duration::from_secs(4)).await;
    let token = reviewed.known("default:client");
    reviewed.api.say_of(&token, Says::Nothing);
    let wire = reviewed.wire(&token).await;
    let many = (0..20).map(|_| {
        let wire = wire.clone();
        tokio::spawn(async move { clusters(&wire, NODE).await })
    });
    for one in many.collect::<Vec<_>>() {
        let (code, message) = one.await.unwrap().unwrap_err();
        assert_eq!(code, Code::Unavailable);
        assert!(message.contains("try again"), "{message}");
    }
    assert_eq!(reviewed.api.asked(), 1);
    // It is asked again soon, and then for good.
    reviewed.api.say_of(&token, proves("default:client"));
    eventually(|| reviewed.code(&token), Option::is_none).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_say_nothing_let_nobody_in() {
    let reviewed = Reviewed::start().await;
    let texts = ["", "{}", "[]", "junk", "{\"kind\":\"TokenReview\"}", "{\"kind\":\"TokenReview\",\"status\":true}"];
    let proof = "{\"kind\":\"Status\",\"status\":{\"authenticated\":true,\"audiences\":[\"istio-ca\"],\
                 \"user\":{\"username\":\"system:serviceaccount:default:client\"}}}";
    let large = format!("{{\"kind\":\"{}\"}}", "a".repeat(1 << 20));
    let texts = texts.into_iter().chain([proof, &*large]).map(|text| Says::Text(text.to_owned()));
    let statuses = [401, 403, 404, 429, 500, 503].map(Says::Status);
    let mut count = 0;
    for says in texts.chain(statuses) {
        let token = reviewed.cluster.token("default:client", "istio-ca");
        reviewed.api.say_of(&token, says.clone());
        assert_eq!(reviewed.code(&token).await, Some(Code::Unavailable), "{says:?}");
        count += 1;
    }
    assert_eq!(reviewed.api.asked(), count, "each once: nothing is tried again behind the client's back");
    assert_eq!(reviewed.reviews("failed").await, count as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_the_api_server_does_not_know_lets_nobody_in() {
    let reviewed = Reviewed::start_with(|_, review| review.context = Some("stranger".to_owned())).await;
    assert_eq!(reviewed.code(&reviewed.known("default:client")).await, Some(Code::Unavailable));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_of_the_set_has_signed_is_not_asked_about() {
    let (signer, files) = (Cluster::new(), TempDir::new().unwrap());
    let path = files.path().join("jwks.json");
    std::fs::write(&path, signer.key_set()).unwrap();
    let source = signer.source(path.to_str().unwrap());
    let reviewed = Reviewed::start_with(|settings, _| settings.service_accounts = source).await;
    assert_eq!(reviewed.code(&signer.token("default:client", "istio-ca")).await, None);
    // What its own key says is final.
    let over = signer.token_for("default:client", "istio-ca", -120);
    reviewed.api.say_of(&over, proves("default:client"));
    assert_eq!(reviewed.code(&over).await, Some(Code::Unauthenticated));
    assert_eq!(reviewed.api.asked(), 0);
    assert_eq!(reviewed.code(&reviewed.known("default:client")).await, None);
    assert_eq!(reviewed.api.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_with_one_bad_token_are_a_handful_of_questions() {
    let reviewed = Reviewed::start().await;
    let bad = reviewed.cluster.token("default:client", "istio-ca");
    for _ in 0..CONNECTIONS {
        let wire = reviewed.wire(&bad).await;
        let streams = (0..STREAMS / CONNECTIONS).map(|_| {
            let wire = wire.clone();
            tokio::spawn(async move { clusters(&wire, NODE).await.map_err(|(code, _)| code) })
        });
        for stream in streams.collect::<Vec<_>>() {
            assert_eq!(stream.await.unwrap(), Err(Code::Unauthenticated));
        }
    }
    assert!(reviewed.api.asked() <= 20, "{}", reviewed.api.asked());
    assert_eq!(reviewed.code(&reviewed.known("default:client")).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_leads_to_no_cluster_is_said_at_the_start() {
    let files = TempDir::new().unwrap();
    let kubeconfig = files.path().join("kubeconfig");
    let api = ApiServer::start().unwrap();
    let mut settings = crate::identity::settings(files.path());
    let mut start = async |text: Option<&str>, context: Option<&str>| {
        text.inspect(|text| std::fs::write(&kubeconfig, text).unwrap());
        settings.token_review = Some(TokenReviewSettings {
            kubeconfig: Some(kubeconfig.clone()),
            context: context.map(str::to_owned),
            ..TokenReviewSettings::new("istio-ca")
        });
        let config = server::Config { tls: Some(settings.clone()), ..crate::fixture::config() };
        let plane = plane::Plane::new(world::Settings::default(), compile::Options::default());
        server::Server::bind(config, plane).await.map(drop).map_err(|error| error.to_string())
    };
    let missing = start(None, None).await.unwrap_err();
    assert!(missing.contains("kubeconfig"), "{missing}");
    assert!(start(Some("junk"), None).await.is_err());
    let unknown = start(Some(&api.kubeconfig()), Some("elsewhere")).await.unwrap_err();
    assert!(unknown.contains("elsewhere"), "{unknown}");
    start(None, Some("stranger")).await.unwrap();
    assert_eq!(api.asked(), 0, "nothing is asked before somebody comes");
}
