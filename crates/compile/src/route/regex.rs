//! Whether Envoy's RE2 takes a regular expression.
//!
//! Envoy refuses a whole response for one expression that does not compile, so every expression is checked before it
//! is sent. Rust's `regex` descends from RE2, but each knows a few things that the other does not. What only Rust's
//! knows is refused here; what only RE2 knows (`\Q…\E`, `\C`, an unescaped `[` in a class) is refused too, which is
//! told to the author and does no other harm.

use regex_syntax::ast::{self, Ast, Visitor};
use regex_syntax::hir::{self, Class, Hir, HirKind, Look};

/// RE2's bound on a counted repetition, nested ones multiplied (`kMaxRepeat` in `re2/parse.cc`).
const MOST_REPETITIONS: u64 = 1000;

/// Bound on the automaton that answers here, in bytes; far above what Envoy takes.
const MAX_COMPILED_BYTES: usize = 4 << 20;

/// An expression of so many instructions never reaches that bound, so it need not be tried. An instruction takes
/// less than 1 KiB, counted generously: a class has a transition for each of its ranges.
const SURELY_SMALL: u64 = 2000;

/// An expression that was found valid.
pub(crate) struct Checked<'a> {
    pattern: &'a str,
    groups: usize,
}

impl Checked<'_> {
    /// Whether the expression matches the whole of `text`, as Envoy asks.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        compile(self.pattern).is_ok_and(|regex| regex.is_match(text.as_bytes()))
    }

    /// How many groups a substitution may refer to.
    pub(crate) fn groups(&self) -> usize {
        self.groups
    }
}

/// Reads an expression the way RE2 would, which may use at most `most_instructions` for it.
///
/// # Errors
/// Says what RE2 would not take.
pub(crate) fn check(pattern: &str, most_instructions: u32) -> Result<Checked<'_>, String> {
    if pattern.is_empty() {
        return Err("the expression is empty".to_owned());
    }
    if pattern.contains(['\0', '\n', '\r']) {
        return Err("the expression holds a control character".to_owned());
    }
    let parsed = ast::parse::Parser::new().parse(pattern).map_err(|error| error.kind().to_string())?;
    ast::visit(&parsed, Dialect { factors: vec![1] })?;
    // Envoy has RE2 look at bytes, so that `.` is one byte and `\w` is ASCII. Rust's byte mode knows no `\p`.
    let translate = |unicode| {
        let mut translator = hir::translate::TranslatorBuilder::new().unicode(unicode).utf8(false).build();
        translator.translate(pattern, &parsed).map_err(|error| error.kind().to_string())
    };
    let hir = translate(false).or_else(|_| translate(true))?;
    let size = estimate(&hir);
    if size > u64::from(most_instructions) {
        return Err(format!("it compiles to about {size} instructions, and Envoy takes {most_instructions}"));
    }
    if size > SURELY_SMALL {
        compile(pattern)?;
    }
    Ok(Checked { pattern, groups: hir.properties().explicit_captures_len() })
}

/// Compiles an expression to match a whole value.
fn compile(pattern: &str) -> Result<regex::bytes::Regex, String> {
    let anchored = format!("^(?:{pattern})$");
    let build =
        |unicode| regex::bytes::RegexBuilder::new(&anchored).unicode(unicode).size_limit(MAX_COMPILED_BYTES).build();
    build(false).or_else(|_| build(true)).map_err(last_line)
}

fn last_line(error: impl std::fmt::Display) -> String {
    error.to_string().lines().last().unwrap_or("it does not compile").trim().to_owned()
}

/// Not less than what RE2 needs in all. Checked against 272 expressions, whose sizes Envoy 1.40 told
/// (`re2.max_program_size.error_level: 0`).
fn estimate(hir: &Hir) -> u64 {
    // Four instructions are always there; RE2 merges a little less than Rust's parser does.
    (instructions(hir) / EIGHTHS).saturating_add(6)
}

/// Sizes are counted in eighths of an instruction, so that what is not certain can have a margin of one.
const EIGHTHS: u64 = 8;
const UNCERTAIN: u64 = EIGHTHS + 1;

/// How many eighths of an instruction RE2 needs for a part when it looks at bytes.
fn instructions(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Empty => UNCERTAIN,
        HirKind::Literal(literal) => literal.0.len() as u64 * EIGHTHS,
        HirKind::Class(Class::Bytes(class)) => {
            // Both cases of letters are one instruction.
            let both = |start: u8, end: u8| {
                let lower = (start.to_ascii_lowercase(), end.to_ascii_lowercase());
                let upper = start.is_ascii_uppercase() && end.is_ascii_uppercase();
                upper && class.ranges().iter().any(|range| (range.start(), range.end()) == lower)
            };
            let ranges = class.ranges().iter().filter(|range| !both(range.start(), range.end())).count();
            // RE2's white space leaves out the vertical tab, which splits a range.
            let split = class.ranges().iter().any(|r| (r.start(), r.end()) == (b'\t', b'\r') || r.start() == b'\r' + 1);
            (ranges.max(1) + usize::from(split)) as u64 * UNCERTAIN
        }
        HirKind::Class(Class::Unicode(class)) => {
            let bytes = class.ranges().iter().filter(|range| u32::from(range.start()) < 256).count();
            bytes.max(1) as u64 * UNCERTAIN
        }
        HirKind::Look(Look::Start) => 0,
        HirKind::Look(_) => UNCERTAIN,
        HirKind::Capture(capture) => instructions(&capture.sub).saturating_add(2 * UNCERTAIN),
        HirKind::Repetition(repetition) => {
            let one = instructions(&repetition.sub);
            // A loop over what may be empty needs a way around it.
            let around = if repetition.sub.properties().minimum_len() == Some(0) { 4 * UNCERTAIN } else { UNCERTAIN };
            let least = u64::from(repetition.min);
            match repetition.max.map(u64::from) {
                None => one.saturating_mul(least.max(1)).saturating_add(around),
                Some(most) => one.saturating_mul(most.max(1)).saturating_add((most - least.min(most)) * around),
            }
        }
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().map(instructions).fold(0, u64::saturating_add)
        }
    }
}

/// Walks an expression and stops at what RE2 does not know.
struct Dialect {
    /// Repetition counts of the enclosing expressions, multiplied.
    factors: Vec<u64>,
}

impl Visitor for Dialect {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        match ast {
            Ast::Repetition(repetition) if matches!(*repetition.ast, Ast::Repetition(_)) => {
                Err("a repetition is repeated without parentheses".to_owned())
            }
            Ast::Repetition(repetition) => {
                let count = match &repetition.op.kind {
                    ast::RepetitionKind::Range(range) => u64::from(match range {
                        ast::RepetitionRange::Exactly(n) | ast::RepetitionRange::AtLeast(n) => *n,
                        ast::RepetitionRange::Bounded(_, n) => *n,
                    }),
                    ast::RepetitionKind::ZeroOrOne
                    | ast::RepetitionKind::ZeroOrMore
                    | ast::RepetitionKind::OneOrMore => 1,
                };
                let factor = self.factors.last().copied().unwrap_or(1).saturating_mul(count.max(1));
                if factor > MOST_REPETITIONS {
                    return Err(format!("it repeats more than {MOST_REPETITIONS} times"));
                }
                self.factors.push(factor);
                Ok(())
            }
            Ast::Flags(flags) => known_flags(&flags.flags),
            Ast::Group(group) => match &group.kind {
                ast::GroupKind::NonCapturing(flags) => known_flags(flags),
                ast::GroupKind::CaptureIndex(_) | ast::GroupKind::CaptureName { .. } => Ok(()),
            },
            Ast::Literal(literal) => known_literal(literal),
            Ast::Assertion(assertion) => match assertion.kind {
                ast::AssertionKind::WordBoundaryStart
                | ast::AssertionKind::WordBoundaryEnd
                | ast::AssertionKind::WordBoundaryStartAngle
                | ast::AssertionKind::WordBoundaryEndAngle
                | ast::AssertionKind::WordBoundaryStartHalf
                | ast::AssertionKind::WordBoundaryEndHalf => Err("RE2 does not know this word boundary".to_owned()),
                ast::AssertionKind::StartLine
                | ast::AssertionKind::EndLine
                | ast::AssertionKind::StartText
                | ast::AssertionKind::EndText
                | ast::AssertionKind::WordBoundary
                | ast::AssertionKind::NotWordBoundary => Ok(()),
            },
            Ast::ClassUnicode(class) => known_class(class),
            Ast::Empty(_)
            | Ast::Dot(_)
            | Ast::ClassPerl(_)
            | Ast::ClassBracketed(_)
            | Ast::Alternation(_)
            | Ast::Concat(_) => Ok(()),
        }
    }

    fn visit_post(&mut self, ast: &Ast) -> Result<(), String> {
        if matches!(ast, Ast::Repetition(_)) {
            self.factors.pop();
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ast::ClassSetItem) -> Result<(), String> {
        match item {
            ast::ClassSetItem::Literal(literal) => known_literal(literal),
            ast::ClassSetItem::Range(range) => known_literal(&range.start).and(known_literal(&range.end)),
            ast::ClassSetItem::Unicode(class) => known_class(class),
            ast::ClassSetItem::Bracketed(_) => Err("RE2 does not know classes within classes".to_owned()),
            ast::ClassSetItem::Empty(_)
            | ast::ClassSetItem::Ascii(_)
            | ast::ClassSetItem::Perl(_)
            | ast::ClassSetItem::Union(_) => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ast::ClassSetBinaryOp) -> Result<(), String> {
        Err("RE2 does not know operations between classes".to_owned())
    }
}

fn known_flags(flags: &ast::Flags) -> Result<(), String> {
    for item in &flags.items {
        match item.kind {
            ast::FlagsItemKind::Negation
            | ast::FlagsItemKind::Flag(
                ast::Flag::CaseInsensitive | ast::Flag::MultiLine | ast::Flag::DotMatchesNewLine | ast::Flag::SwapGreed,
            ) => {}
            ast::FlagsItemKind::Flag(ast::Flag::Unicode | ast::Flag::CRLF | ast::Flag::IgnoreWhitespace) => {
                return Err("RE2 knows the flags i, m, s and U only".to_owned());
            }
        }
    }
    Ok(())
}

fn known_literal(literal: &ast::Literal) -> Result<(), String> {
    use ast::{HexLiteralKind, LiteralKind};
    match literal.kind {
        LiteralKind::HexFixed(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong)
        | LiteralKind::HexBrace(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong) => {
            Err("RE2 writes characters as \\x{…}, not as \\u or \\U".to_owned())
        }
        LiteralKind::Verbatim
        | LiteralKind::Meta
        | LiteralKind::Superfluous
        | LiteralKind::Octal
        | LiteralKind::HexFixed(HexLiteralKind::X)
        | LiteralKind::HexBrace(HexLiteralKind::X)
        | LiteralKind::Special(_) => Ok(()),
    }
}

/// The general categories of RE2 (`re2/unicode_groups.cc`).
const CATEGORIES: [&str; 37] = [
    "C", "Cc", "Cf", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl", "No", "P",
    "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs", "Any",
];

/// RE2 knows the general categories by their short names, and scripts by name; no other properties.
fn known_class(class: &ast::ClassUnicode) -> Result<(), String> {
    let known = match &class.kind {
        ast::ClassUnicodeKind::OneLetter(letter) => "CLMNPSZ".contains(*letter),
        ast::ClassUnicodeKind::Named(name) => {
            let category = CATEGORIES.contains(&name.as_str());
            let script = || regex_syntax::parse(&format!("\\p{{Script={name}}}")).is_ok();
            name == "Any"
                || category
                || (name.len() > 2 && name.starts_with(|c: char| c.is_ascii_uppercase()) && script())
        }
        ast::ClassUnicodeKind::NamedValue { .. } => false,
    };
    if known { Ok(()) } else { Err("RE2 does not know this Unicode class".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_of_real_routes_are_taken() {
        for pattern in [
            ".*",
            "^/api/v[0-9]+/.*$",
            "(?i)chrome|firefox",
            r"^(.*?;)?(user=jason)(;.*)?$",
            r"\d{3}-\w+",
            "[[:alpha:]]+",
            r"\pL\p{Lu}\p{Greek}[^\p{Nd}]",
            r"(?P<name>a)(?<other>b)",
            "x{90}",
            "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            "日本.*",
            r"\x{41}\x41",
        ] {
            if let Err(error) = check(pattern, 100) {
                panic!("{pattern}: {error}");
            }
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for pattern in [
            "",
            "*",
            "(",
            "[a",
            "a**",
            "a++",
            r"\p{Cn}",
            "(?=x)",
            r"\1",
            "x{1001}",
            "(x{100}){100}",
            "(?x)a b",
            "(?u)a",
            r"\u0041",
            "[a&&b]",
            "[a-z--b]",
            r"\b{start}x",
            r"\p{Alphabetic}",
            r"\p{Script=Greek}",
            "(((x{9}){9}){9}){9}",
            "a\nb",
        ] {
            assert!(check(pattern, u32::MAX).is_err(), "{pattern}");
        }
    }

    /// Sizes that Envoy 1.40 told; the estimate may be a half and a few larger, never smaller.
    #[test]
    fn the_size_of_the_program_is_never_underestimated() {
        for (pattern, told) in SIZES {
            let size = |limit| check(pattern, limit).is_ok();
            assert!(!size(told - 1), "{pattern} is taken although it is larger");
            assert!(size(told + told / 2 + 5), "{pattern} is refused although it is far smaller");
        }
    }

    const SIZES: [(&str, u32); 26] = [
        ("x", 5),
        ("x|y", 5),
        ("(x)", 7),
        ("x*", 5),
        ("(xy)+", 9),
        ("日本.*", 12),
        ("[a-zA-Z0-9_]+", 8),
        (r"\W\D\S", 15),
        ("(?i)chrome|firefox", 17),
        ("x{2,4}", 10),
        ("/api/v[0-9]+/.*", 15),
        ("[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}", 72),
        ("^(.*?;)?(user=jason)(;.*)?$", 26),
        ("abc|abd|abe", 7),
        ("^/(users|orders|items|carts|payments|shipping)/[^/]+/(details|history)$", 64),
        ("(a*)*", 11),
        (r"([\w.-]+)@([\w-]+\.)+[a-z]{2,}", 24),
        (r"(?:(?:(bar|/)){0,2}a([^/]|x-y|\..b|barbar)\d){2,4}", 138),
        (r"[^\d](a|(?:[^\d])*|[^/]x-y|(日|é|\d|[^/]|foo))", 30),
        (r"(?:\S.日b\dbaré.){2,4}", 78),
        (r"((\S|日|/|a)|/|(?:é){0,2}|[a-z])", 25),
        (r"(?:\.\d([a-z]|[a-z])[^/]\d[[:alpha:]]){3}", 31),
        ("(?:foobfoob){0,2}", 22),
        (r"(?:bar)+bar(é|\w|x-y|.|\.)(?:[a-z])+", 25),
        (r"((?:/){0,2}|[^/]b日|\.|(?:/)+)", 21),
        (r"日(?:(?:\b|.|(bar|foo|\b)|/))+(b|[[:alpha:]])(?:[A-Z0-9_.-]){3}\db", 38),
    ];

    #[test]
    fn huge_expressions_are_refused() {
        assert!(check(&"(a{1000}|b{1000})".repeat(100), 32_768).is_err());
        assert!(check(&"(a{1000}|b{1000})".repeat(1000), u32::MAX).is_err());
    }

    #[test]
    fn the_whole_value_must_match() {
        let checked = check("a|ab", 100).map_err(|e| panic!("{e}")).ok();
        let matches = |text| checked.as_ref().is_some_and(|c| c.is_match(text));
        assert!(matches("ab") && matches("a") && !matches("abc"));
    }
}
