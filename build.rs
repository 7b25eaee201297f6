//! Builds what `crates/proto` embeds: our own messages and stubs, and the descriptors of Envoy's API and ours.
//!
//! No `protoc` is needed. Envoy's descriptors are a file inside the source of the crate `envoy-types`, which that crate does not
//! export; Cargo says where the source is. Our own protos are compiled by `protox` against those same descriptors.

// A build script is nothing but IO.
#![allow(clippy::disallowed_methods)]

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use prost::bytes::BufMut;
use prost::encoding::{WireType, decode_key, encode_key, encode_varint, skip_field};
use protox::Compiler;
use protox::file::{ChainFileResolver, DescriptorSetFileResolver, IncludeFileResolver};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Our own files, below `proto/`.
const OWN_PROTOS: [&str; 3] =
    ["pointsman/admin/v1/admin.proto", "pointsman/delivery/v1alpha1/intents.proto", "istio/v1/auth/ca.proto"];

/// Packages whose messages `envoy-types` already has.
const EXTERN_PACKAGES: [(&str, &str); 5] = [
    (".google.protobuf", "::envoy_types::pb::google::protobuf"),
    (".google.rpc", "::envoy_types::pb::google::rpc"),
    (".envoy", "::envoy_types::pb::envoy"),
    (".xds", "::envoy_types::pb::xds"),
    (".validate", "::envoy_types::pb::validate"),
];

/// `FileDescriptorSet.file` and `FileDescriptorProto.source_code_info`, in `google/protobuf/descriptor.proto`.
const SET_FILE: u32 = 1;
const FILE_SOURCE_CODE_INFO: u32 = 9;

fn main() -> Result<()> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let protos = root.join("proto");
    let types = envoy_types_source(&root, &out)?.join("src/generated/types.bin");

    // The lock file decides which envoy-types is used, so a new lock may mean new descriptors.
    for path in [&protos, &root.join("Cargo.lock"), &root.join("build.rs"), &types] {
        println!("cargo:rerun-if-changed={}", path.display());
    }

    let envoy = fs::read(&types).map_err(|e| format!("reading Envoy's descriptors {}: {e}", types.display()))?;
    let own = compile_own(&protos, &envoy, &out)?;
    // Descriptor sets that are joined end to end are one descriptor set.
    let mut descriptors = without_source_info(&envoy)?;
    descriptors.extend(without_source_info(&own)?);
    fs::write(out.join("descriptors.bin"), descriptors)?;
    Ok(())
}

/// Where Cargo keeps the source of `envoy-types`.
///
/// Cargo is asked about a package that depends on nothing else, with this workspace's lock. Asked about the workspace itself,
/// `cargo metadata` wants the source of everything in the lock, also what this build does not use and has not downloaded:
/// dev-dependencies, and (without `--filter-platform`) crates of other platforms. In a new `CARGO_HOME` that fails.
fn envoy_types_source(root: &Path, out: &Path) -> Result<PathBuf> {
    let lock = fs::read_to_string(root.join("Cargo.lock"))?;
    let version = locked_version(&lock, "envoy-types").ok_or("Cargo.lock does not list envoy-types")?;
    let locator = out.join("locate");
    fs::create_dir_all(locator.join("src"))?;
    fs::write(locator.join("src/lib.rs"), "")?;
    fs::write(locator.join("Cargo.lock"), &lock)?;
    let manifest = locator.join("Cargo.toml");
    let package = "[package]\nname = \"locate\"\nversion = \"0.0.0\"\nedition = \"2024\"";
    fs::write(&manifest, format!("{package}\n\n[workspace]\n\n[dependencies]\nenvoy-types = \"={version}\"\n"))?;

    // The working directory stays the workspace, whose `.cargo/config.toml` may name another source of crates.
    let output = Command::new(env::var_os("CARGO").ok_or("Cargo did not set CARGO")?)
        .args(["metadata", "--format-version=1", "--offline", "--filter-platform", &env::var("TARGET")?])
        .arg("--manifest-path")
        .arg(&manifest)
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let package = packages.iter().find(|p| p["name"] == "envoy-types").ok_or("cargo metadata omits envoy-types")?;
    let manifest = package["manifest_path"].as_str().ok_or("envoy-types has no manifest path")?;
    Ok(Path::new(manifest).parent().ok_or("envoy-types' manifest is in no directory")?.to_owned())
}

/// The version of `package` in a lock file.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

/// Generates Rust for our own protos and returns their descriptors, as an encoded set without the imported files.
fn compile_own(protos: &Path, envoy: &[u8], out: &Path) -> Result<Vec<u8>> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(protos.to_owned()));
    resolver.add(DescriptorSetFileResolver::decode(envoy)?);
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_source_info(true);
    for file in OWN_PROTOS {
        compiler.open_file(file)?;
    }
    let own = compiler.include_imports(false).encode_file_descriptor_set();
    let with_imports = compiler.include_imports(true).encode_file_descriptor_set();

    // The stubs sit behind the feature `grpc`, so that crates which only need messages do not name tonic.
    let mut builder = tonic_prost_build::configure()
        .out_dir(out)
        // That is: do not map them to `prost_types`; they are mapped below.
        .compile_well_known_types(true)
        .server_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .client_mod_attribute(".", "#[cfg(feature = \"grpc\")]");
    for (package, module) in EXTERN_PACKAGES {
        builder = builder.extern_path(package, module);
    }
    builder.compile_fds(prost_types::FileDescriptorSet::decode(with_imports.as_slice())?)?;
    Ok(own)
}

/// Copies a descriptor set, leaving out comments and positions, which are four fifths of it.
///
/// This works on the wire: decoding into `prost_types` would drop the options that are extensions (`validate.rules`,
/// `udpa.annotations.sensitive`), and those are what the descriptors are embedded for.
fn without_source_info(set: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(set.len() / 4);
    for file in fields(set)?.iter().filter(|f| f.number == SET_FILE) {
        let kept: Vec<u8> = fields(file.payload)?
            .iter()
            .filter(|f| f.number != FILE_SOURCE_CODE_INFO)
            .flat_map(|f| f.whole)
            .copied()
            .collect();
        encode_key(SET_FILE, WireType::LengthDelimited, &mut out);
        encode_varint(kept.len() as u64, &mut out);
        out.put_slice(&kept);
    }
    Ok(out)
}

/// A field of an encoded message.
struct Field<'a> {
    number: u32,
    /// All of it, its key included.
    whole: &'a [u8],
    /// What a length-delimited field holds; empty for others.
    payload: &'a [u8],
}

/// The fields of a message, in order.
fn fields(message: &[u8]) -> Result<Vec<Field<'_>>> {
    let mut found = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let start = rest;
        let (number, wire_type) = decode_key(&mut rest)?;
        let mut payload: &[u8] = &[];
        if wire_type == WireType::LengthDelimited {
            let length = prost::encoding::decode_varint(&mut rest)? as usize;
            payload = rest.get(..length).ok_or("a descriptor is cut short")?;
            rest = &rest[length..];
        } else {
            skip_field(wire_type, number, &mut rest, Default::default())?;
        }
        found.push(Field { number, whole: &start[..start.len() - rest.len()], payload });
    }
    Ok(found)
}
