//! `pointsman bootstrap`: what a client needs to find the server and say who it is.

mod bearer;
mod statistics;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use compile::names::CERTIFICATE_PROVIDER;
use serde_json::{Map, Value, json};

use crate::certificate::files;
use crate::output::say;
use crate::serve::parse_seconds;

/// Print a bootstrap configuration for an Envoy or a gRPC client.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  pointsman bootstrap --pod reviews-1 --ip 127.0.0.1 --interception none > envoy.json
  envoy -c envoy.json --disable-hot-restart

  pointsman bootstrap --kind gateway --pod ingress-1 --namespace istio-system --label istio=ingressgateway

  pointsman bootstrap --kind grpc --pod client-1 > xds.json
  GRPC_XDS_BOOTSTRAP=xds.json my-client xds:///reviews.default.svc.cluster.local:9080

  pointsman bootstrap --kind grpc --pod server-1 --xds pointsman.example:15012 --xds-ca root-cert.pem \
    --certificates /run/certificates --service-account server > xds.json

A sidecar that proves who it is, by --token-file or --client-cert, can take mutual TLS. Others begin it
towards workloads whose Pod or WorkloadEntry has the label security.istio.io/tlsMode: istio.")]
pub(crate) struct Arguments {
    /// What kind of client it is for.
    #[arg(long, value_enum, default_value = "sidecar")]
    pub(crate) kind: Kind,
    /// Name of the workload.
    #[arg(long, default_value = "local", value_name = "NAME")]
    pub(crate) pod: String,
    /// Namespace of the workload.
    #[arg(long, short, default_value = "default")]
    pub(crate) namespace: String,
    /// IP address of the workload.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) ip: IpAddr,
    /// A label of the workload, as key=value; may be repeated. A pod object that the server knows counts instead.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// How traffic gets into a sidecar.
    #[arg(long, value_enum, default_value = "redirect")]
    pub(crate) interception: Interception,
    /// Give the sidecar an explicit HTTP proxy on 127.0.0.1 at this port.
    #[arg(long, value_name = "PORT")]
    pub(crate) http_proxy_port: Option<u16>,
    /// Where the server listens: HOST:PORT or unix:PATH.
    #[arg(long, default_value = "127.0.0.1:15010", value_name = "ADDRESS")]
    pub(crate) xds: String,
    /// Connect by TLS, to a server that one of these authorities (PEM) has signed for.
    #[arg(long, value_name = "FILE")]
    pub(crate) xds_ca: Option<PathBuf>,
    /// The name in the server's certificate [default: the host of --xds].
    #[arg(long, value_name = "NAME", requires = "xds_ca")]
    pub(crate) xds_name: Option<String>,
    /// Prove who the workload is by this certificate chain (PEM).
    #[arg(long, value_name = "FILE", requires_all = ["xds_ca", "client_key"])]
    pub(crate) client_cert: Option<PathBuf>,
    /// The key of --client-cert (PEM).
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,
    /// Write this file, by which Envoy takes --client-cert and --client-key anew whenever they are replaced by renaming
    /// (Envoy only).
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub(crate) client_sds: Option<PathBuf>,
    /// Take certificates of the mesh from the files in this directory, which `pointsman certificate` keeps; with --xds-ca
    /// prove by them who the workload is, unless --client-cert does (gRPC only).
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) certificates: Option<PathBuf>,
    /// Look at the files of --certificates every so many seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", requires = "certificates", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) certificates_every: u32,
    /// Prove who the workload is by the bearer token in this file, which is copied into the bootstrap, as a secret that
    /// Envoy shows nobody (Envoy only).
    #[arg(long, value_name = "FILE", requires = "xds_ca", conflicts_with = "client_cert")]
    pub(crate) token_file: Option<PathBuf>,
    /// Service account of the workload.
    #[arg(long, value_name = "NAME")]
    pub(crate) service_account: Option<String>,
    /// Use the state-of-the-world protocol instead of the incremental one (Envoy only; gRPC always does).
    #[arg(long)]
    pub(crate) state_of_the_world: bool,
    /// Let the server ask for reports of the load on each cluster (Envoy only; gRPC always does).
    #[arg(long)]
    pub(crate) load_reports: bool,
    /// Report to the server every so many seconds how the requests of each cluster ended and how long they took (Envoy
    /// only). Statistics that neither this nor an operator needs are not kept then.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) metrics_interval: Option<Duration>,
    /// Address of Envoy's own admin interface.
    #[arg(long, default_value = "127.0.0.1:15000", value_name = "IP:PORT")]
    pub(crate) admin: std::net::SocketAddr,
    /// The DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub(crate) domain: String,
}

/// Kinds of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Envoy beside a workload.
    Sidecar,
    /// Envoy at the edge.
    Gateway,
    /// A gRPC client without a proxy.
    Grpc,
}

/// How traffic gets into a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Interception {
    /// iptables REDIRECT to 15001 and 15006.
    Redirect,
    /// iptables TPROXY.
    Tproxy,
    /// None: listeners really bind their ports.
    None,
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("\"{text}\" is not KEY=VALUE"))
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let text = serde_json::to_string_pretty(&bootstrap(arguments)?).context("cannot print the bootstrap")?;
    say!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// The bootstrap as JSON.
pub(crate) fn bootstrap(arguments: &Arguments) -> Result<Value> {
    match arguments.kind {
        Kind::Grpc => grpc(arguments),
        Kind::Sidecar | Kind::Gateway => envoy(arguments),
    }
}

/// `<type>~<ip>~<pod>.<namespace>~<namespace>.svc.<domain>`, as Istio's agents write it.
fn node_id(arguments: &Arguments) -> String {
    let kind = match arguments.kind {
        Kind::Sidecar | Kind::Grpc => "sidecar",
        Kind::Gateway => "router",
    };
    let Arguments { ip, pod, namespace, domain, .. } = arguments;
    format!("{kind}~{ip}~{pod}.{namespace}~{namespace}.svc.{domain}")
}

fn metadata(arguments: &Arguments) -> Map<String, Value> {
    let mut labels: BTreeMap<_, _> = arguments.labels.iter().cloned().collect();
    let has_proof = arguments.token_file.is_some() || arguments.client_cert.is_some();
    if arguments.kind == Kind::Sidecar && has_proof {
        // It gets a certificate, and ends mutual TLS by it. Clients look for the label on the pod object, where there is one.
        labels.entry("security.istio.io/tlsMode".to_owned()).or_insert_with(|| "istio".to_owned());
    }
    let mut metadata = Map::new();
    metadata.insert("NAMESPACE".into(), json!(arguments.namespace));
    metadata.insert("INSTANCE_IPS".into(), json!(arguments.ip.to_string()));
    metadata.insert("LABELS".into(), json!(labels));
    if let Some(service_account) = &arguments.service_account {
        metadata.insert("SERVICE_ACCOUNT".into(), json!(service_account));
    }
    if arguments.token_file.is_some() {
        // The token is in the discovery stream alone: other calls go by the certificate that the proxy gets there.
        metadata.insert("PROXY_CONFIG".into(), json!({ "discoveryAddress": arguments.xds }));
        metadata.extend(arguments.xds_name.iter().map(|name| ("DISCOVERY_NAME".to_owned(), json!(name))));
    }
    match arguments.kind {
        Kind::Grpc => {
            metadata.insert("GENERATOR".into(), json!("grpc"));
            if arguments.certificates.is_some() {
                metadata.insert("CERTIFICATE_PROVIDERS".into(), json!([CERTIFICATE_PROVIDER]));
            }
        }
        Kind::Sidecar => {
            let mode = match arguments.interception {
                Interception::Redirect => "REDIRECT",
                Interception::Tproxy => "TPROXY",
                Interception::None => "NONE",
            };
            metadata.insert("INTERCEPTION_MODE".into(), json!(mode));
            if let Some(port) = arguments.http_proxy_port {
                metadata.insert("HTTP_PROXY_PORT".into(), json!(port.to_string()));
            }
        }
        Kind::Gateway => {}
    }
    metadata
}

fn envoy(arguments: &Arguments) -> Result<Value> {
    if arguments.certificates.is_some() {
        bail!("--certificates is for --kind grpc only; Envoy takes --client-cert and --client-key");
    }
    let address = match arguments.xds.strip_prefix("unix:") {
        Some(path) => json!({ "pipe": { "path": path } }),
        None => {
            let (host, port) = host_and_port(&arguments.xds)?;
            json!({ "socket_address": { "address": host, "port_value": port } })
        }
    };
    // A name needs resolving; an IP address or a Unix socket does not.
    let is_name = address["socket_address"]["address"].as_str().is_some_and(|host| host.parse::<IpAddr>().is_err());
    let from_ads = json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" });
    let service = json!({ "envoy_grpc": { "cluster_name": "xds-grpc" } });
    let mut bootstrap = json!({
        "node": { "id": node_id(arguments), "cluster": arguments.pod, "metadata": metadata(arguments) },
        "admin": { "address": { "socket_address": {
            "address": arguments.admin.ip().to_string(), "port_value": arguments.admin.port(),
        } } },
        "dynamic_resources": {
            "ads_config": {
                "api_type": if arguments.state_of_the_world { "GRPC" } else { "DELTA_GRPC" },
                "transport_api_version": "V3",
                // The node with the list of all extensions is 61 KB: once is enough.
                "set_node_on_first_message_only": true,
                "grpc_services": [service],
            },
            "cds_config": from_ads,
            "lds_config": from_ads,
        },
        // As in Istio's bootstrap: Envoy itself refuses regular expressions above 100 instructions, and with them the
        // whole response. `serve --max-regex-instructions` says how much of this is used.
        "layered_runtime": { "layers": [
            { "name": "static", "static_layer": { "re2.max_program_size.error_level": 32768 } },
            { "name": "admin", "admin_layer": {} },
        ] },
        "static_resources": { "clusters": [{
            "name": "xds-grpc",
            "type": if is_name { "STRICT_DNS" } else { "STATIC" },
            "connect_timeout": "1s",
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {
                    // Finds half-open connections, which would otherwise stay silent for good.
                    "connection_keepalive": { "interval": "30s", "timeout": "5s" },
                } },
            } },
            "load_assignment": { "cluster_name": "xds-grpc", "endpoints": [{
                "lb_endpoints": [{ "endpoint": { "address": address } }],
            }] },
        }] },
    });
    if let Some(authorities) = &arguments.xds_ca {
        bootstrap["static_resources"]["clusters"][0]["transport_socket"] = tls(arguments, authorities)?;
    }
    if let Some(path) = &arguments.token_file {
        let token = std::fs::read_to_string(path).with_context(|| format!("cannot read \"{}\"", path.display()))?;
        bearer::bring(&mut bootstrap, token.trim());
    }
    if arguments.load_reports {
        bootstrap["cluster_manager"] = json!({ "load_stats_config": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [service.clone()],
        } });
    }
    if let Some(interval) = arguments.metrics_interval {
        statistics::report(&mut bootstrap, interval, service);
    }
    Ok(bootstrap)
}

/// How Envoy connects by TLS.
fn tls(arguments: &Arguments, authorities: &Path) -> Result<Value> {
    let name = server_name(arguments)?;
    let file = |path: &Path| json!({ "filename": path });
    let kind = if name.parse::<IpAddr>().is_ok() { "IP_ADDRESS" } else { "DNS" };
    let mut common = json!({
        "validation_context": {
            "trusted_ca": file(authorities),
            "match_typed_subject_alt_names": [{ "san_type": kind, "matcher": { "exact": name } }],
        },
        "alpn_protocols": ["h2"],
        // Envoy's clients stop at TLS 1.2 otherwise.
        "tls_params": { "tls_maximum_protocol_version": "TLSv1_3" },
    });
    if let (Some(certificate), Some(key)) = (&arguments.client_cert, &arguments.client_key) {
        let mut pair = json!({ "certificate_chain": file(certificate), "private_key": file(key) });
        match &arguments.client_sds {
            None => common["tls_certificates"] = json!([pair]),
            Some(sds) => {
                // Envoy looks at the files of a static certificate only once.
                pair["watched_directory"] = json!({ "path": certificate.parent() });
                write_sds(sds, &pair)?;
                let from = json!({ "path_config_source": { "path": sds }, "resource_api_version": "V3" });
                common["tls_certificate_sds_secret_configs"] = json!([{ "name": CLIENT_SECRET, "sds_config": from }]);
            }
        }
    }
    let mut context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": common,
    });
    if kind == "DNS" {
        context["sni"] = json!(name);
    }
    Ok(json!({ "name": "envoy.transport_sockets.tls", "typed_config": context }))
}

/// What the client's certificate is called in the file of --client-sds.
const CLIENT_SECRET: &str = "client";

fn write_sds(path: &Path, pair: &Value) -> Result<()> {
    let secret = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": CLIENT_SECRET,
        "tls_certificate": pair,
    });
    let text = json!({ "resources": [secret] }).to_string();
    std::fs::write(path, text).with_context(|| format!("cannot write --client-sds \"{}\"", path.display()))
}

fn server_name(arguments: &Arguments) -> Result<&str> {
    match &arguments.xds_name {
        Some(name) => Ok(name),
        None => Ok(host_and_port(&arguments.xds)?.0),
    }
}

/// The form of gRPC proposal A27.
fn grpc(arguments: &Arguments) -> Result<Value> {
    if !arguments.xds.starts_with("unix:") {
        host_and_port(&arguments.xds)?;
    }
    let mut bootstrap = json!({
        "xds_servers": [{
            "server_uri": arguments.xds,
            "channel_creds": [channel_credentials(arguments)],
            // The server says what does not exist, so a client that hears nothing is right to take that for trouble, not
            // for an answer (gRPC proposal A88).
            "server_features": ["xds_v3", "resource_timer_is_transient_error"],
        }],
        "node": {
            "id": node_id(arguments),
            "cluster": arguments.pod,
            "metadata": metadata(arguments),
            "locality": {},
        },
        "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
    });
    if let Some(directory) = &arguments.certificates {
        let provider = json!({ "plugin_name": "file_watcher", "config": {
            "certificate_file": directory.join(files::CHAIN),
            "private_key_file": directory.join(files::KEY),
            "ca_certificate_file": directory.join(files::ROOTS),
            "refresh_interval": format!("{}s", arguments.certificates_every),
        } });
        bootstrap["certificate_providers"] = json!({ CERTIFICATE_PROVIDER: provider });
    }
    Ok(bootstrap)
}

/// How a gRPC client connects (gRPC proposal A65).
fn channel_credentials(arguments: &Arguments) -> Value {
    let Some(authorities) = &arguments.xds_ca else { return json!({ "type": "insecure" }) };
    let mut config = json!({ "ca_certificate_file": authorities });
    let given = arguments.client_cert.clone().zip(arguments.client_key.clone());
    let kept = || arguments.certificates.as_ref().map(|kept| (kept.join(files::CHAIN), kept.join(files::KEY)));
    if let Some((certificate, key)) = given.or_else(kept) {
        config["certificate_file"] = json!(certificate);
        config["private_key_file"] = json!(key);
        config["refresh_interval"] = json!(format!("{}s", arguments.certificates_every));
    }
    json!({ "type": "tls", "config": config })
}

pub(crate) fn host_and_port(address: &str) -> Result<(&str, u16)> {
    let Some((host, port)) = address.rsplit_once(':') else {
        bail!("--xds \"{address}\" is neither HOST:PORT nor unix:PATH");
    };
    let port = port.parse().with_context(|| format!("--xds \"{address}\": \"{port}\" is no port"))?;
    Ok((host.trim_matches(['[', ']']), port))
}
