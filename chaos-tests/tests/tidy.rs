//! tidy: rules about the text of this repository, each failing with the sentence that was broken.
//!
//! Who may import what stands in `layers.toml`, nowhere else. Every rule is a function from text to
//! findings, so that each is also tried on text that breaks it: a rule that cannot fail is none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 900;
const HEADER_WORDS_MIN: usize = 4;
const UNBOUNDED: [&str; 2] = [concat!("unbounded_", "channel("), concat!("mpsc::", "channel()")];
const UNSAFE: &str = concat!("allow(unsafe", "_code");
const SKIPPED: [&str; 4] = ["target", "ringdb-demo", "node_modules", "venv"];

// ---------------------------------------------------------------------------------------------
// The repository as it is

#[test]
fn crates_import_only_what_layers_allows() {
    let layers = Layers::of(&read("layers.toml"));
    let mut found = layers.contradictions();
    let members = members(&read("Cargo.toml"));
    found.extend(layers.unlisted(&members));
    for name in &members {
        let manifest = read(&format!("{name}/Cargo.toml"));
        found.extend(layers.imports(name, &manifest));
        found.extend(layers.lints(name, &manifest, &read("Cargo.toml")));
    }
    report(found);
}

#[test]
fn every_crate_of_other_people_has_its_line_in_the_decisions() {
    let layers = Layers::of(&read("layers.toml"));
    let text = read("docs/decisions/0009-other-peoples-crates.md");
    let theirs: BTreeSet<&String> =
        layers.crates.values().flat_map(|c| c.theirs.iter().chain(&c.tests)).collect();
    let theirs = theirs.into_iter().filter(|name| !layers.crates.contains_key(*name));
    let missing = theirs.filter(|name| !text.contains(&format!("| `{name}` |")));
    report(missing.map(|name| {
        format!("docs/decisions/0009-other-peoples-crates.md: no line says why `{name}` is here")
    }));
}

#[test]
fn source_files_keep_the_house_rules() {
    let layers = Layers::of(&read("layers.toml"));
    let mut found = Vec::new();
    for path in files("rs") {
        let text = read(&path);
        found.extend(opening(&path, &text));
        found.extend(length(&path, &text));
        found.extend(unfinished(&path, &text));
        found.extend(layers.clocks(&path, &text));
        found.extend(layers.sleeps(&path, &text));
        found.extend(layers.purity(&path, &text));
        found.extend(layers.queues(&path, &text));
        found.extend(layers.unsafe_code(&path, &text));
    }
    found.extend(layers.idle_exceptions(&files("rs"), read));
    report(found);
}

#[test]
fn every_source_file_is_compiled() {
    let mut found = Vec::new();
    for name in members(&read("Cargo.toml")) {
        let inside = |path: &String| path.starts_with(&format!("{name}/"));
        let texts: BTreeMap<String, String> = files("rs")
            .into_iter()
            .filter(inside)
            .map(|path| (path.clone(), read(&path)))
            .collect();
        found.extend(unreached(&texts, &read(&format!("{name}/Cargo.toml"))));
    }
    report(found);
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let mut found = promises(&read("README.md"));
    for path in files("md") {
        let code_of = |file: &str| fs::read_to_string(root().join(file)).ok();
        found.extend(test_references(&path, &read(&path), code_of));
    }
    report(found);
}

#[test]
fn decisions_are_numbered_without_gaps_and_have_their_parts() {
    let inside = |path: String| path.strip_prefix("docs/decisions/").map(str::to_owned);
    let names: Vec<String> = files("md").into_iter().filter_map(inside).collect();
    assert!(!names.is_empty(), "docs/decisions is empty");
    let mut found = numbering(&names);
    for name in &names {
        found.extend(decision(name, &read(&format!("docs/decisions/{name}"))));
    }
    report(found);
}

#[test]
fn every_noun_of_the_glossary_is_used_and_stands_there_once() {
    let documents = files("md").into_iter().filter(|path| path != "docs/glossary.md");
    let others: Vec<String> =
        documents.chain(files("rs")).map(|path| read(&path).to_lowercase()).collect();
    let used = |noun: &str| others.iter().any(|text| text.contains(noun));
    report(nouns(&read("docs/glossary.md"), used));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let there = |target: &str| root().join(target).exists();
    report(files("md").iter().flat_map(|path| links(path, &read(path), there)));
}

#[test]
fn every_setting_is_explained_to_operators() {
    let keys = read("node/src/config/keys.rs");
    assert!(
        keys.contains("key(\""),
        "node/src/config/keys.rs no longer lists key(\"section.name\""
    );
    report(settings(&keys, &read("docs/operating.md")));
}

#[test]
fn scripts_stop_at_the_first_error_and_only_what_they_started() {
    let scripts = files("sh").into_iter().chain([".ci/run".to_owned()]);
    report(scripts.flat_map(|path| script(&path, &read(&path))));
}

// ---------------------------------------------------------------------------------------------
// The rules: who imports what

/// The rows of a TOML file of ours: section, key, and the value as it is written.
fn toml(text: &str) -> Vec<(String, String, String)> {
    let balanced =
        |value: &str| value.matches(['[', '{']).count() == value.matches([']', '}']).count();
    let mut rows = Vec::new();
    let mut section = String::new();
    // A key whose value goes on on the next line.
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        let line = without_comment(line).trim();
        let (key, value) = if let Some((key, value)) = open.take() {
            (key, value + line)
        } else if line.starts_with('[') && line.ends_with(']') {
            section = line.trim_matches(['[', ']']).to_owned();
            continue;
        } else if let Some((key, value)) = line.split_once('=') {
            (key.trim().trim_matches('"').to_owned(), value.trim().to_owned())
        } else {
            continue;
        };
        if balanced(&value) {
            rows.push((section.clone(), key, value));
        } else {
            open = Some((key, value));
        }
    }
    rows
}

/// A line up to the `#` that begins a comment: one outside quotes.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

fn strings(value: &str) -> Vec<String> {
    value.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn members(manifest: &str) -> Vec<String> {
    let rows = toml(manifest).into_iter();
    rows.filter(|(section, key, _)| section == "workspace" && key == "members")
        .flat_map(|(_, _, value)| strings(&value))
        .collect()
}

/// What `layers.toml` says of one crate.
#[derive(Debug, Default)]
struct Layer {
    question: String,
    pure: bool,
    own: BTreeSet<String>,
    theirs: BTreeSet<String>,
    tests: BTreeSet<String>,
    /// Why it has a table of lints of its own; empty when it has not.
    own_lints: String,
}

/// `layers.toml`.
#[derive(Debug, Default)]
struct Layers {
    crates: BTreeMap<String, Layer>,
    apart: BTreeMap<String, Vec<String>>,
    /// By what is excepted (clock, sleep, queue, files): the file and why.
    exceptions: BTreeMap<String, BTreeMap<String, String>>,
    unknown: Vec<String>,
}

impl Layers {
    fn of(text: &str) -> Self {
        let mut layers = Self::default();
        for (section, key, value) in toml(text) {
            let list = || strings(&value).into_iter().collect::<BTreeSet<_>>();
            if let Some(name) = section.strip_prefix("crate.") {
                let layer = layers.crates.entry(name.to_owned()).or_default();
                match key.as_str() {
                    "question" => layer.question = strings(&value).concat(),
                    "pure" => layer.pure = value == "true",
                    "own" => layer.own = list(),
                    "theirs" => layer.theirs = list(),
                    "tests" => layer.tests = list(),
                    "own_lints" => layer.own_lints = strings(&value).concat(),
                    _ => layers.unknown.push(format!("[{section}] {key}")),
                }
                continue;
            }
            match section.as_str() {
                "apart" => drop(layers.apart.insert(key, strings(&value))),
                "clock" | "sleep" | "queue" | "files" | "unsafe" => {
                    let reasons = layers.exceptions.entry(section).or_default();
                    reasons.insert(key, strings(&value).concat());
                }
                _ => layers.unknown.push(format!("[{section}] {key}")),
            }
        }
        layers
    }

    /// Where the table itself breaks a rule: an import that goes up, or a pair that meets.
    fn contradictions(&self) -> Vec<String> {
        let mut found: Vec<String> =
            self.unknown.iter().map(|row| format!("layers.toml: {row} means nothing")).collect();
        for (name, layer) in &self.crates {
            if layer.question.is_empty() {
                found.push(format!("layers.toml: `{name}` answers no question"));
            }
            for other in &layer.own {
                match self.crates.get(other) {
                    None => found.push(format!("layers.toml: `{name}` imports `{other}`, unknown")),
                    Some(below) if layer.pure && !below.pure => found.push(format!(
                        "layers.toml: `{name}` is pure and may not import `{other}`, which is not"
                    )),
                    Some(_) => {}
                }
            }
            let below = self.below(name);
            if below.contains(name) {
                found.push(format!("layers.toml: imports go down, and `{name}` imports itself"));
            }
            for other in self.apart.get(name).into_iter().flatten().filter(|o| below.contains(*o)) {
                found.push(format!("layers.toml: `{name}` and `{other}` may never meet"));
            }
        }
        found
    }

    /// All that `name` imports, directly or through others.
    fn below(&self, name: &str) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut left = vec![name.to_owned()];
        while let Some(next) = left.pop() {
            for other in self.crates.get(&next).into_iter().flat_map(|layer| &layer.own) {
                if seen.insert(other.clone()) {
                    left.push(other.clone());
                }
            }
        }
        seen
    }

    fn unlisted(&self, members: &[String]) -> Vec<String> {
        let missing = members.iter().filter(|m| !self.crates.contains_key(*m));
        let gone = self.crates.keys().filter(|c| !members.contains(c));
        missing
            .map(|m| format!("layers.toml: the crate `{m}` has no section"))
            .chain(gone.map(|c| format!("layers.toml: `{c}` is no member of the workspace")))
            .collect()
    }

    /// The imports of one crate's `Cargo.toml` against its section.
    fn imports(&self, name: &str, manifest: &str) -> Vec<String> {
        let Some(layer) = self.crates.get(name) else { return Vec::new() };
        let mut found = Vec::new();
        for (section, key, _) in toml(manifest) {
            let Some((kind, import)) = dependency(&section, &key) else { continue };
            let tests = kind == "dev-dependencies";
            let allowed = layer.own.contains(import)
                || layer.theirs.contains(import)
                || tests && layer.tests.contains(import);
            if !allowed {
                let who = if tests { "the tests of " } else { "" };
                found.push(format!(
                    "{name}/Cargo.toml: {who}`{name}` may not import `{import}`: it answers \"{}\", \
                     and layers.toml gives it {:?} of ours and {:?} of other people's",
                    layer.question, layer.own, layer.theirs
                ));
            }
        }
        found
    }

    /// The lints of a crate: the workspace's, or its own where layers.toml says why; and then all of
    /// the workspace's as well, but that `unsafe` code is denied instead of forbidden.
    fn lints(&self, name: &str, manifest: &str, workspace: &str) -> Vec<String> {
        let Some(layer) = self.crates.get(name) else { return Vec::new() };
        let rows = toml(manifest);
        let has = |section: &str, key: &str, value: &str| {
            rows.iter()
                .any(|(s, k, v)| (s.as_str(), k.as_str(), v.as_str()) == (section, key, value))
        };
        if layer.own_lints.is_empty() {
            let missing = !has("lints", "workspace", "true");
            let finding = format!("{name}/Cargo.toml: `[lints] workspace = true` is missing");
            return missing.then_some(finding).into_iter().collect();
        }
        let wanted = toml(workspace).into_iter().filter_map(|(section, key, value)| {
            let section = section.strip_prefix("workspace.")?.to_owned();
            let value = if key == "unsafe_code" { "\"deny\"".to_owned() } else { value };
            section.starts_with("lints.").then_some((section, key, value))
        });
        wanted
            .filter(|(section, key, value)| !has(section, key, value))
            .map(|(section, key, value)| {
                format!("{name}/Cargo.toml: [{section}] {key} = {value} is missing")
            })
            .collect()
    }
}

/// The kind and the name of what a row of a `Cargo.toml` imports, in any of the three spellings:
/// `[dependencies] name = …`, `[target.'…'.dependencies] name = …`, `[dependencies.name] …`.
fn dependency<'a>(section: &'a str, key: &'a str) -> Option<(&'static str, &'a str)> {
    for kind in ["dev-dependencies", "build-dependencies", "dependencies"] {
        let plain = section == kind || section.ends_with(&format!(".{kind}"));
        let table = section.strip_prefix(kind).and_then(|rest| rest.strip_prefix('.'));
        let name = match (plain, table) {
            (true, _) => key.split('.').next().unwrap_or(key),
            (false, Some(name)) => name,
            (false, None) => continue,
        };
        return Some((kind, name.strip_prefix("ringdb-").unwrap_or(name)));
    }
    None
}

// ---------------------------------------------------------------------------------------------
// The rules: what stands in source files

impl Layers {
    fn excepted(&self, what: &str, path: &str) -> bool {
        self.exceptions.get(what).is_some_and(|files| files.contains_key(path))
    }

    fn clocks(&self, path: &str, text: &str) -> Vec<String> {
        let patterns = [concat!("Instant::", "now"), concat!("SystemTime::", "now")];
        let name = path.split('/').next().unwrap_or_default();
        let pure = self.crates.get(name).is_some_and(|layer| layer.pure);
        let outside = path.contains("/examples/") || path.contains("/tests/") && !pure;
        if outside || self.excepted("clock", path) {
            return Vec::new();
        }
        lines_with(path, text, &patterns, "only node/src/clock.rs asks what time it is")
    }

    fn sleeps(&self, path: &str, text: &str) -> Vec<String> {
        let patterns =
            [concat!("thread::", "sleep"), concat!("time::", "sleep"), concat!(" sl", "eep(")];
        if self.excepted("sleep", path) || path.contains("/examples/") {
            return Vec::new();
        }
        lines_with(path, text, &patterns, "wait for a condition, never for time to pass")
    }

    fn queues(&self, path: &str, text: &str) -> Vec<String> {
        if !path.contains("/src/") || self.excepted("queue", path) {
            return Vec::new();
        }
        lines_with(path, before_tests(text), &UNBOUNDED, "no queue is without a bound")
    }

    /// What a pure crate may not name, and what storage may name in one file only.
    fn purity(&self, path: &str, text: &str) -> Vec<String> {
        let Some((name, inside)) = path.split_once('/') else { return Vec::new() };
        let Some(layer) = self.crates.get(name) else { return Vec::new() };
        if !inside.starts_with("src/") || self.excepted("files", path) {
            return Vec::new();
        }
        let world = ["std::fs", "std::net", "std::process", "std::thread::spawn", "tokio"];
        let chance = ["std::thread", "HashMap", "HashSet", "rand::rng(", "thread_rng"];
        if layer.pure {
            let rule = format!("`{name}` is pure: no file, socket, thread, chance or hash order");
            return lines_with(path, text, &[&world[..], &chance[..]].concat(), &rule);
        }
        if name == "storage" {
            let rule = "storage reaches files only through `Disk`, and owns no thread";
            return lines_with(path, before_tests(text), &world, rule);
        }
        Vec::new()
    }

    /// Exceptions that give no reason, or that nobody needs any more.
    /// `unsafe` code where layers.toml does not allow it.
    fn unsafe_code(&self, path: &str, text: &str) -> Option<String> {
        let allowed = self.exceptions.get("unsafe").is_some_and(|files| files.contains_key(path));
        (text.contains(UNSAFE) && !allowed)
            .then(|| format!("{path}: `unsafe` code, and layers.toml does not say why"))
    }

    fn idle_exceptions(&self, files: &[String], read: impl Fn(&str) -> String) -> Vec<String> {
        let rows =
            self.exceptions.iter().flat_map(|(what, rows)| rows.iter().map(move |r| (what, r)));
        let fault = |what: &str, path: &String, why: &str| {
            if !files.contains(path) {
                return Some("does not exist");
            }
            let needed = match what {
                "clock" => read(path).contains(concat!("::", "now")),
                "sleep" => read(path).contains(concat!("sl", "eep(")),
                "unsafe" => read(path).contains(UNSAFE),
                "queue" => UNBOUNDED.iter().any(|made| read(path).contains(made)),
                _ => true,
            };
            match (needed, why.is_empty()) {
                (false, _) => Some("no longer needs to be there"),
                (true, true) => Some("gives no reason"),
                (true, false) => None,
            }
        };
        rows.filter_map(|(what, (path, why))| {
            fault(what, path, why).map(|fault| format!("layers.toml: [{what}] {path} {fault}"))
        })
        .collect()
    }
}

/// The code of a line, without its comment. (`redis://` begins none.)
fn code(line: &str) -> &str {
    match line.find("//") {
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    }
}

fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn lines_with(path: &str, text: &str, patterns: &[&str], rule: &str) -> Vec<String> {
    let hit = |line: &str| patterns.iter().find(|p| code(line).contains(**p)).copied();
    text.lines()
        .enumerate()
        .filter_map(|(at, line)| hit(line).map(|pattern| (at, pattern)))
        .map(|(at, pattern)| format!("{path}:{}: `{}`: {rule}", at + 1, pattern.trim()))
        .collect()
}

fn opening(path: &str, text: &str) -> Option<String> {
    let first = text.lines().next().unwrap_or_default();
    let says = |rest: &str| rest.split_whitespace().count() >= HEADER_WORDS_MIN;
    (!first.strip_prefix("//!").is_some_and(says) && !first.starts_with("#!"))
        .then(|| format!("{path}: a file opens with `//! ` and what it is and promises"))
}

fn length(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > LINES_MAX)
        .then(|| format!("{path}: {lines} lines hold more than one idea; {LINES_MAX} are enough"))
}

fn unfinished(path: &str, text: &str) -> Vec<String> {
    let marks = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("FIX", "ME"),
        concat!("#[ig", "nore"),
    ];
    let hit = |line: &str| marks.iter().find(|mark| line.contains(**mark)).copied();
    let lines = text.lines().enumerate().filter_map(|(at, line)| hit(line).map(|mark| (at, mark)));
    lines.map(|(at, mark)| format!("{path}:{}: `{mark}` is left unfinished", at + 1)).collect()
}

/// Files of one crate that nothing compiles: no `mod` names them, nor does its `Cargo.toml`.
fn unreached(texts: &BTreeMap<String, String>, manifest: &str) -> Vec<String> {
    let roots = ["lib", "main", "build"];
    let automatic = !manifest.contains("autotests = false");
    let reached = |path: &str| {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let file = parts.last().map_or("", |last| last.trim_end_matches(".rs"));
        let module = if file == "mod" { parts[parts.len() - 2] } else { file };
        let named =
            |text: &String| text.lines().any(|l| l.trim().ends_with(&format!("mod {module};")));
        let whole = matches!(parts[..], ["examples" | "benches", _] | ["src", "bin", ..])
            || matches!(parts[..], ["src", _]) && roots.contains(&file)
            || matches!(parts[..], ["tests", _] | ["tests", _, "main.rs"]) && automatic;
        whole || manifest.contains(&format!("\"{}\"", parts.join("/"))) || texts.values().any(named)
    };
    let dead = texts.keys().filter(|path| !reached(path));
    dead.map(|path| format!("{path}: nothing compiles it; name it in a `mod` or in Cargo.toml"))
        .collect()
}

// ---------------------------------------------------------------------------------------------
// The rules: what stands in documents and scripts

/// The rows of README's table of promises: each must name a test.
fn promises(readme: &str) -> Vec<String> {
    let part = readme.split("\n## ").find(|part| part.starts_with("What it promises"));
    let Some(part) = part else {
        return vec!["README.md: the part `What it promises` is missing".to_owned()];
    };
    let rows: Vec<&str> = part.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    if rows.is_empty() {
        return vec!["README.md: the promises are no table".to_owned()];
    }
    let nameless = rows.iter().filter(|row| references(row).is_empty());
    nameless.map(|row| format!("README.md: this promise names no test: {row}")).collect()
}

/// What a text names in backticks as `path/to/file.rs::name_of_a_function`.
fn references(text: &str) -> Vec<(String, String)> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|quoted| quoted.split_once(".rs::"))
        .filter(|(file, name)| !file.contains(' ') && !name.contains(' '))
        .map(|(file, name)| (format!("{file}.rs"), name.to_owned()))
        .collect()
}

fn test_references(
    path: &str,
    text: &str,
    code_of: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (file, name) in references(&prose(text)) {
        match code_of(&file) {
            None => found.push(format!("{path}: names {file}, which does not exist")),
            Some(code) if !is_test(&code, &name) => {
                found.push(format!("{path}: {file} has no test `{name}`"));
            }
            Some(_) => {}
        }
    }
    found
}

/// A document without its blocks of code.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// Whether `code` has a function `name` with a test attribute right above it.
fn is_test(code: &str, name: &str) -> bool {
    let lines: Vec<&str> = code.lines().map(str::trim_start).collect();
    let head = format!("fn {name}(");
    let attributed = |at: usize| {
        let above = lines[..at].iter().rev();
        let mut attributes = above.take_while(|l| l.starts_with("#[") || l.starts_with("//"));
        attributes.any(|l| l.starts_with("#[") && l.contains("test"))
    };
    (0..lines.len()).filter(|&at| lines[at].contains(&head)).any(attributed)
}

fn numbering(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    let expected = |at: usize| format!("{:04}-", at + 1);
    let wrong = names.iter().enumerate().find(|(at, name)| !name.starts_with(&expected(*at)));
    wrong
        .map(|(at, name)| format!("docs/decisions/{name}: the next number is {}", expected(at)))
        .into_iter()
        .collect()
}

fn decision(name: &str, text: &str) -> Vec<String> {
    let parts = ["## Context", "## Choice", "## What we gave up", "## How we would know"];
    let number = name.split('-').next().unwrap_or_default();
    let mut found = Vec::new();
    if !text.starts_with(&format!("# {number}. ")) {
        found.push(format!("docs/decisions/{name}: opens with `# {number}. ` and its title"));
    }
    let missing = parts.iter().filter(|part| !text.contains(**part));
    found.extend(missing.map(|part| format!("docs/decisions/{name}: `{part}` is missing")));
    found
}

/// The bold words that open lines of the glossary: each used elsewhere, each there once.
fn nouns(glossary: &str, used: impl Fn(&str) -> bool) -> Vec<String> {
    let bold = glossary.lines().filter_map(|line| line.strip_prefix("**")?.split("**").next());
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for noun in bold.map(str::to_lowercase) {
        if !used(&noun) {
            found.push(format!("docs/glossary.md: nothing else speaks of `{noun}`"));
        }
        if !seen.insert(noun.clone()) {
            found.push(format!("docs/glossary.md: `{noun}` stands there twice"));
        }
    }
    if seen.is_empty() {
        found.push("docs/glossary.md: no line begins with a **noun**".to_owned());
    }
    found
}

fn links(path: &str, text: &str, there: impl Fn(&str) -> bool) -> Vec<String> {
    let directory = path.rsplit_once('/').map_or(String::new(), |(d, _)| format!("{d}/"));
    let prose = prose(text);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    targets
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .filter(|target| !there(&format!("{directory}{target}")))
        .map(|target| format!("{path}: the link to {target} leads nowhere"))
        .collect()
}

fn settings(keys: &str, text: &str) -> Vec<String> {
    keys.split("key(\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|key| key.contains('.') && !text.contains(&format!("`{key}`")))
        .map(|key| format!("docs/operating.md: nothing explains the setting `{key}`"))
        .collect()
}

fn script(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("#!/usr/bin/env bash\n# ") {
        found.push(format!("{path}: opens with `#!/usr/bin/env bash` and what it is"));
    }
    if !text.contains("set -euo pipefail") {
        found.push(format!("{path}: `set -euo pipefail` is missing"));
    }
    let broad = [concat!("pk", "ill"), concat!("kill", "all")];
    let by_name = |line: &str| broad.iter().any(|b| line.contains(b));
    let lines = text.lines().enumerate().filter(|(_, line)| by_name(line));
    found.extend(lines.map(|(at, _)| {
        format!("{path}:{}: stops processes by name; it may stop those it started", at + 1)
    }));
    found
}

// ---------------------------------------------------------------------------------------------
// Reading the repository

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member lies below the root").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// All files with this extension, as paths from the root, in order.
fn files(extension: &str) -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    let mut left = vec![root.clone()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the repository").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let skipped = name.starts_with('.') || SKIPPED.contains(&name.as_str());
            if path.is_dir() && !skipped {
                left.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                let inside = path.strip_prefix(&root).expect("it was found below the root");
                found.push(inside.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

fn report(found: impl IntoIterator<Item = String>) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

// ---------------------------------------------------------------------------------------------
// Each rule on text that breaks it

const TABLE: &str = r#"
    [crate.low]  # the lowest
    question = "What?"
    pure = true
    own = []
    theirs = ["serde"]
    tests = [
      "rand",   # a seed
    ]
    [crate.high]
    question = "How?"
    own = ["low"]
    theirs = ["tokio"]
    [sleep]
    "high/src/demo.rs" = "looks until it is so"
"#;

const GOOD: &str = "[dependencies]\nserde.workspace = true\n[dev-dependencies]\nrand = \"1\"\n\
                    [lints]\nworkspace = true\n";

const NOTHING: [&str; 0] = [];

#[track_caller]
fn breaks(found: impl IntoIterator<Item = String>, sentence: &str) {
    let found: Vec<String> = found.into_iter().collect();
    let one = found.len() == 1 && found[0].contains(sentence);
    assert!(one, "expected {sentence:?}, found {found:?}");
}

#[test]
fn an_import_that_the_table_does_not_give_is_found_however_it_is_written() {
    let layers = Layers::of(TABLE);
    assert_eq!(layers.contradictions(), NOTHING);
    assert_eq!(layers.imports("low", GOOD), NOTHING);
    let with = |text: &str| layers.imports("low", &format!("{GOOD}{text}"));
    breaks(with("[dependencies]\ntokio.workspace = true\n"), "`low` may not import `tokio`");
    breaks(with("[dependencies]\nrand = \"1\"\n"), "`low` may not import `rand`");
    breaks(with("[dependencies.tokio]\nversion = \"1\"\n"), "may not import `tokio`");
    breaks(with("[target.'cfg(unix)'.dependencies]\nlibc = \"1\"\n"), "may not import `libc`");
    breaks(with("[build-dependencies]\ncc = \"1\"\n"), "may not import `cc`");
    breaks(with("[dev-dependencies]\nringdb-high.workspace = true\n"), "tests of `low` may not");
    let serde = "[dependencies]\nserde = \"1\"\n";
    breaks(layers.lints("low", serde, ""), "`[lints] workspace = true`");
    let own = "[lints.rust]\nunsafe_code = \"deny\"\n";
    let workspace = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\ntodo = \"warn\"\n";
    let table =
        "[crate.low]\nquestion = \"?\"\nown_lints = \"arena\"\n[unsafe]\n\"a.rs\" = \"why\"\n";
    let with_own = Layers::of(table);
    breaks(with_own.lints("low", own, workspace), "todo = \"warn\" is missing");
    assert_eq!(with_own.lints("low", &format!("{own}todo = \"warn\"\n"), workspace), NOTHING);
    let allow = format!("#![{UNSAFE})]");
    assert_eq!(with_own.unsafe_code("a.rs", &allow), None);
    breaks(with_own.unsafe_code("b.rs", &allow), "does not say why");
}

#[test]
fn a_table_whose_imports_go_up_or_meet_is_found() {
    let of = |more: &str| Layers::of(&format!("{TABLE}\n{more}")).contradictions();
    breaks(of("[apart]\nhigh = [\"low\"]"), "`high` and `low` may never meet");
    breaks(of("[crate.new]\nown = []"), "`new` answers no question");
    breaks(of("[crate.new]\nquestion = \"?\"\nown = [\"old\"]"), "imports `old`, unknown");
    breaks(of("[crate.new]\nquestion = \"?\"\npure = true\nown = [\"high\"]"), "is pure");
    breaks(of("[crate.new]\nquestion = \"?\"\nmine = []"), "means nothing");
    let circle = of("[crate.low]\nown = [\"high\"]\npure = false");
    assert_eq!(circle.len(), 2, "each of the two imports itself: {circle:?}");
    let layers = Layers::of(TABLE);
    breaks(layers.unlisted(&["low".into(), "high".into(), "new".into()]), "`new` has no section");
    breaks(layers.unlisted(&["low".into()]), "`high` is no member");
}

#[test]
fn a_clock_a_sleep_or_a_hash_map_in_the_wrong_place_is_found() {
    let layers = Layers::of(TABLE);
    let clock = concat!("let t = Instant::", "now();");
    breaks(layers.clocks("high/src/a.rs", clock), "high/src/a.rs:1: ");
    assert_eq!(layers.clocks("high/examples/load.rs", clock), NOTHING);
    assert_eq!(layers.clocks("high/tests/a.rs", clock), NOTHING);
    breaks(layers.clocks("low/tests/a.rs", clock), "asks what time it is");
    assert_eq!(layers.clocks("high/src/a.rs", &format!("// {clock}")), NOTHING);
    let wait = concat!("std::thread::", "sleep(a);");
    breaks(layers.sleeps("high/tests/a.rs", wait), "never for time to pass");
    assert_eq!(layers.sleeps("high/src/demo.rs", wait), NOTHING);
    breaks(layers.purity("low/src/a.rs", "use std::collections::HashMap;"), "`low` is pure");
    assert_eq!(layers.purity("high/src/a.rs", "use std::collections::HashMap;"), NOTHING);
    let there = ["high/src/demo.rs".to_owned()];
    assert_eq!(layers.idle_exceptions(&there, |_| wait.to_owned()), NOTHING);
    breaks(layers.idle_exceptions(&there, |_| String::new()), "no longer needs to be there");
    breaks(layers.idle_exceptions(&[], |_| String::new()), "does not exist");
}

#[test]
fn a_file_without_a_purpose_or_an_end_is_found() {
    breaks(opening("a.rs", "use std::fs;"), "opens with");
    breaks(opening("a.rs", "//! a stub"), "opens with");
    assert_eq!(opening("a.rs", "//! hints: writes kept for the absent"), None);
    breaks(length("a.rs", &"x\n".repeat(LINES_MAX + 1)), "901 lines");
    assert_eq!(length("a.rs", &"x\n".repeat(LINES_MAX)), None);
    breaks(unfinished("a.rs", concat!("fn a() { to", "do!() }")), "left unfinished");
    breaks(unfinished("a.rs", concat!("#[ig", "nore]")), "left unfinished");
    let queue = format!("let (a, b) = {});", UNBOUNDED[0]);
    breaks(Layers::of(TABLE).queues("high/src/b.rs", &queue), "without a bound");
}

#[test]
fn a_file_that_nothing_compiles_is_found() {
    let texts = |paths: &[&str]| {
        paths
            .iter()
            .map(|p| ((*p).to_owned(), "    pub(crate) mod a;\nmod d;".to_owned()))
            .collect()
    };
    let good = texts(&["x/src/lib.rs", "x/src/a.rs", "x/src/d/mod.rs", "x/examples/e.rs"]);
    assert_eq!(unreached(&good, ""), NOTHING);
    breaks(unreached(&texts(&["x/src/lib.rs", "x/src/b.rs"]), ""), "x/src/b.rs: nothing compiles");
    let tests = texts(&["x/tests/t.rs"]);
    assert_eq!(unreached(&tests, ""), NOTHING);
    breaks(unreached(&tests, "autotests = false"), "x/tests/t.rs: nothing compiles");
    assert_eq!(unreached(&tests, "autotests = false\npath = \"tests/t.rs\""), NOTHING);
}

#[test]
fn a_promise_without_a_test_is_found() {
    let table = "\n## What it promises\n\n| promise | test |\n|---|---|\n| all | ";
    breaks(promises("# no table"), "is missing");
    breaks(promises(&format!("{table}none |\n\n## Next\n")), "names no test");
    assert_eq!(promises(&format!("{table}`a/tests/b.rs::c` |\n")), NOTHING);
    let code = "    #[test]\n    fn c() {}\n    fn d() {}";
    let check = |text: &str| {
        test_references("README.md", text, |p| (p == "a/tests/b.rs").then(|| code.to_owned()))
    };
    assert_eq!(check("`a/tests/b.rs::c`"), NOTHING);
    breaks(check("`a/tests/b.rs::d`"), "has no test `d`");
    breaks(check("`a/tests/b.rs::e`"), "has no test `e`");
    breaks(check("`a/tests/z.rs::c`"), "does not exist");
}

#[test]
fn a_gap_in_the_decisions_a_dead_link_or_an_idle_noun_is_found() {
    breaks(numbering(&["0001-a.md".into(), "0003-b.md".into()]), "the next number is 0002-");
    let whole = "# 0001. A\n## Context\n## Choice\n## What we gave up\n## How we would know\n";
    assert_eq!(decision("0001-a.md", whole), NOTHING);
    breaks(decision("0002-a.md", whole), "opens with `# 0002. `");
    breaks(decision("0001-a.md", &whole.replace("## Choice", "")), "`## Choice` is missing");
    breaks(nouns("**dot** a\n**dot** b\n", |_| true), "twice");
    breaks(nouns("**dot** a\n", |_| false), "nothing else speaks of `dot`");
    breaks(nouns("dots\n", |_| true), "no line begins");
    breaks(links("docs/a.md", "see [b](b.md#part)", |target| target != "docs/b.md"), "nowhere");
    assert_eq!(links("docs/a.md", "[b](https://b)", |_| false), NOTHING);
    breaks(settings("key(\"a.b\", key(\"a.c\",", "`a.b`"), "the setting `a.c`");
}

#[test]
fn a_script_that_goes_on_after_an_error_is_found() {
    let good = "#!/usr/bin/env bash\n# a: says what it is\nset -euo pipefail\n";
    assert_eq!(script("a.sh", good), NOTHING);
    breaks(script("a.sh", &good.replace("-euo", "-u")), "`set -euo pipefail` is missing");
    breaks(script("a.sh", &good[4..]), "opens with");
    breaks(script("a.sh", &format!("{good}{} x\n", concat!("pk", "ill"))), "by name");
}
