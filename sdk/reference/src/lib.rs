//! Generates the plugin interface's reference as Markdown from `wit/v0.1`, in the order in which a
//! reader needs it.
//!
//! Every type, function and world has a heading, and every use of a type is a link to it.

#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use wit_parser::{
    Docs, Function, Interface, InterfaceId, PackageId, Resolve, Type, TypeDef, TypeDefKind, World,
    WorldItem, WorldKey,
};

/// Interfaces, in the order of the document.
const INTERFACES: [&str; 6] = ["backend", "steering", "transform", "emitter", "log", "types"];

/// Text in front of the generated part.
const INTRODUCTION: &str = "\
# Plugin reference

<!-- Made of wit/v0.1 by `make reference`. Change it there. -->

Everything that passes between the daemon and a plugin: the package `heddle:overlay@0.1.0`, in the terms of
[WIT](https://component-model.bytecodealliance.org/design/wit.html). [`wit/README.md`](../wit/README.md) has the rules that
no type can express, the limits and the manifest; [`plugins.md`](plugins.md) shows how a plugin is made.

The Rust SDK has the same names in Rust's spelling (`plan-peer` is `plan_peer`, `lease-family` is `LeaseFamily`), with
`std::net::IpAddr` for `ip-address` and `ipnet::IpNet` for `ip-network`.
";

/// Returns the directory of the interface.
pub fn wit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/v0.1")
}

/// Returns the path of the document.
pub fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/plugin-reference.md")
}

/// Generates the document for the interface in a directory.
///
/// # Errors
///
/// If the WIT cannot be parsed, or lacks an interface.
pub fn markdown(wit: &Path) -> anyhow::Result<String> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit)?;
    let reference = Reference { resolve: &resolve, package };
    let mut text = INTRODUCTION.to_owned();
    reference.worlds(&mut text);
    for name in INTERFACES {
        let id = resolve.packages[package].interfaces.get(name);
        let id = id.with_context(|| format!("there is no interface `{name}`"))?;
        reference.interface(&mut text, *id);
    }
    let left = resolve.packages[package]
        .interfaces
        .keys()
        .find(|name| !INTERFACES.contains(&name.as_str()));
    match left {
        Some(name) => {
            anyhow::bail!("there is an interface `{name}`, which has no place in the text")
        }
        None => Ok(text),
    }
}

struct Reference<'a> {
    resolve: &'a Resolve,
    package: PackageId,
}

impl Reference<'_> {
    fn worlds(&self, text: &mut String) {
        text.push_str(
            "\n## Worlds\n\nWhat a plugin can be. One exports all interfaces of its world.\n\n",
        );
        text.push_str("| world | exports | imports |\n| --- | --- | --- |\n");
        let worlds: Vec<_> = self.resolve.packages[self.package].worlds.iter().collect();
        for (name, id) in &worlds {
            let World { imports, exports, .. } = &self.resolve.worlds[**id];
            let exports = self.names(exports.iter());
            // Interfaces of types have no functions: importing one only makes its names available.
            let imports = self.names(imports.iter().filter(|(_, item)| !self.is_types(item)));
            let _ = writeln!(text, "| [`{name}`](#{name}) | {exports} | {imports} |");
        }
        for (name, id) in worlds {
            let _ = writeln!(text, "\n### {name}\n");
            docs(text, &self.resolve.worlds[*id].docs);
        }
    }

    fn names<'i>(&self, items: impl Iterator<Item = (&'i WorldKey, &'i WorldItem)>) -> String {
        let name = |(key, _)| match key {
            &WorldKey::Interface(id) => self.interface_name(id).to_owned(),
            WorldKey::Name(name) => name.clone(),
        };
        let links: Vec<_> = items.map(name).map(|name| format!("[`{name}`](#{name})")).collect();
        links.join(", ")
    }

    fn is_types(&self, item: &WorldItem) -> bool {
        matches!(item, WorldItem::Interface { id, .. } if self.resolve.interfaces[*id].functions.is_empty())
    }

    fn interface_name(&self, id: InterfaceId) -> &str {
        self.resolve.interfaces[id].name.as_deref().unwrap_or_default()
    }

    fn interface(&self, text: &mut String, id: InterfaceId) {
        let Interface { types, functions, docs: about, .. } = &self.resolve.interfaces[id];
        let _ = writeln!(text, "\n## {}\n", self.interface_name(id));
        docs(text, about);
        for function in functions.values() {
            self.function(text, function);
        }
        for (name, id) in types {
            let defined = &self.resolve.types[*id];
            // A type of another interface is described there.
            if !matches!(&defined.kind, TypeDefKind::Type(Type::Id(_))) {
                self.type_definition(text, name, defined);
            }
        }
    }

    fn function(&self, text: &mut String, function: &Function) {
        let _ = writeln!(text, "\n### {}\n", function.name);
        docs(text, &function.docs);
        let rows = function
            .params
            .iter()
            .map(|param| [format!("`{}`", param.name), self.shown(&param.ty)]);
        let result = function.result.iter().map(|result| ["result".to_owned(), self.shown(result)]);
        table(text, ["", "type"], rows.chain(result));
    }

    fn type_definition(
        &self,
        text: &mut String,
        name: &str,
        TypeDef { kind, docs: about, .. }: &TypeDef,
    ) {
        let _ = writeln!(text, "\n### {name}\n");
        docs(text, about);
        match kind {
            TypeDefKind::Record(record) => {
                let row = |field: &wit_parser::Field| {
                    [format!("`{}`", field.name), self.shown(&field.ty), line(&field.docs)]
                };
                table(text, ["field", "type", ""], record.fields.iter().map(row));
            }
            TypeDefKind::Variant(variant) => {
                let row = |case: &wit_parser::Case| {
                    let carried = case.ty.as_ref().map(|ty| self.shown(ty)).unwrap_or_default();
                    [format!("`{}`", case.name), carried, line(&case.docs)]
                };
                table(text, ["case", "with", ""], variant.cases.iter().map(row));
            }
            TypeDefKind::Enum(cases) => {
                let names: Vec<_> =
                    cases.cases.iter().map(|case| format!("`{}`", case.name)).collect();
                let _ = writeln!(text, "\nOne of {}.", names.join(", "));
            }
            other => {
                let _ = writeln!(text, "\nThe same as {}.", self.shown_kind(other));
            }
        }
    }

    /// Formats a type, with links to those that have a name.
    fn shown(&self, ty: &Type) -> String {
        match ty {
            Type::Id(id) => {
                let TypeDef { name, kind, .. } = &self.resolve.types[*id];
                match name {
                    Some(name) => format!("[`{name}`](#{name})"),
                    None => self.shown_kind(kind),
                }
            }
            Type::Bool => "`bool`".to_owned(),
            Type::String => "`string`".to_owned(),
            number => format!("`{}`", format!("{number:?}").to_lowercase()),
        }
    }

    fn shown_kind(&self, kind: &TypeDefKind) -> String {
        let or_none = |ty: &Option<Type>| ty.as_ref().map_or("`_`".to_owned(), |ty| self.shown(ty));
        match kind {
            TypeDefKind::List(of) => format!("list of {}", self.shown(of)),
            TypeDefKind::Option(of) => format!("{}, or none", self.shown(of)),
            TypeDefKind::Result(result) => {
                format!("{}, or the error {}", or_none(&result.ok), or_none(&result.err))
            }
            TypeDefKind::Tuple(tuple) => {
                let each: Vec<_> = tuple.types.iter().map(|ty| self.shown(ty)).collect();
                match &each[..] {
                    [first, rest @ ..] if rest.iter().all(|other| other == first) => {
                        format!("{} times {first}", each.len())
                    }
                    _ => format!("({})", each.join(", ")),
                }
            }
            TypeDefKind::Type(ty) => self.shown(ty),
            other => format!("a {}", other.as_str()),
        }
    }
}

/// Appends a comment verbatim, without the rules between sections.
fn docs(text: &mut String, Docs { contents }: &Docs) {
    let lines = contents.as_deref().unwrap_or_default().trim().lines();
    for line in lines.filter(|line| !line.starts_with("----")) {
        let _ = writeln!(text, "{line}");
    }
}

/// Formats a comment for a cell of a table.
fn line(Docs { contents }: &Docs) -> String {
    let words: Vec<_> = contents.as_deref().unwrap_or_default().split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

fn table<const N: usize>(
    text: &mut String,
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rows: String = rows.map(|cells| row(&cells)).collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&row(&header.map(str::to_owned)));
        text.push_str(&row(&header.map(|_| "---".to_owned())));
        text.push_str(&rows);
    }
}
