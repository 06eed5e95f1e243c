//! Type hints of Python's, and how they are written.

use std::collections::BTreeSet;

/// How wide lines of generated modules get, where names allow it.
pub(super) const WIDTH: usize = 79;
/// Largest hint; what is larger says nothing to anybody and is `Any`.
const LARGEST: usize = 120;

/// A type hint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Type {
    /// Anything.
    Any,
    /// Nothing.
    Null,
    /// A class, an alias, or a type of Python's.
    Name(String),
    /// A list.
    List(Box<Self>),
    /// A dict whose keys are texts.
    Dict(Box<Self>),
    /// One of these values, as Python writes them.
    Literal(Vec<String>),
    /// One of several.
    Union(Vec<Self>),
}

impl Type {
    pub(super) fn name(name: &str) -> Self {
        Self::Name(name.to_owned())
    }

    pub(super) fn list(of: Self) -> Self {
        Self::List(Box::new(of)).limited()
    }

    pub(super) fn dict(of: Self) -> Self {
        Self::Dict(Box::new(of)).limited()
    }

    /// One of several, each once; `None` comes last.
    pub(super) fn union(of: impl IntoIterator<Item = Self>) -> Self {
        let mut all: Vec<Self> = Vec::new();
        let mut add = |one: Self| {
            if !all.contains(&one) {
                all.push(one);
            }
        };
        for one in of {
            match one {
                Self::Union(inner) => inner.into_iter().for_each(&mut add),
                one => add(one),
            }
        }
        if all.contains(&Self::Any) {
            return Self::Any;
        }
        if let Some(at) = all.iter().position(|one| *one == Self::Null) {
            let null = all.remove(at);
            all.push(null);
        }
        if all.len() < 2 { all.pop().unwrap_or(Self::Any) } else { Self::Union(all).limited() }
    }

    pub(super) fn or_null(self) -> Self {
        Self::union([self, Self::Null])
    }

    fn size(&self) -> usize {
        match self {
            Self::Any | Self::Null | Self::Name(_) => 1,
            Self::Literal(values) => values.len(),
            Self::List(of) | Self::Dict(of) => 1 + of.size(),
            Self::Union(of) => of.iter().map(Self::size).sum(),
        }
    }

    fn limited(self) -> Self {
        if self.size() > LARGEST { Self::Any } else { self }
    }

    /// The names in it.
    pub(super) fn names(&self, into: &mut BTreeSet<String>) {
        match self {
            Self::Any => drop(into.insert("Any".to_owned())),
            Self::Literal(_) => drop(into.insert("Literal".to_owned())),
            Self::Null => {}
            Self::Name(name) => drop(into.insert(name.clone())),
            Self::List(of) | Self::Dict(of) => of.names(into),
            Self::Union(of) => of.iter().for_each(|one| one.names(into)),
        }
    }

    /// The same with `Any` in the place of a name.
    pub(super) fn without(self, name: &str) -> Self {
        match self {
            Self::Name(found) if found == name => Self::Any,
            Self::List(of) => Self::list(of.without(name)),
            Self::Dict(of) => Self::dict(of.without(name)),
            Self::Union(of) => Self::union(of.into_iter().map(|one| one.without(name))),
            other => other,
        }
    }

    /// On one line.
    pub(super) fn flat(&self) -> String {
        match self {
            Self::Any => "Any".to_owned(),
            Self::Null => "None".to_owned(),
            Self::Name(name) => name.clone(),
            Self::List(of) => format!("list[{}]", of.flat()),
            Self::Dict(of) => format!("dict[str, {}]", of.flat()),
            Self::Literal(values) => format!("Literal[{}]", values.join(", ")),
            Self::Union(of) => of.iter().map(Self::flat).collect::<Vec<_>>().join(" | "),
        }
    }

    /// Behind `taken` characters of a line that begins with `indent` blanks, on more lines where it is too long.
    pub(super) fn written(&self, taken: usize, indent: usize) -> String {
        let flat = self.flat();
        if taken + flat.len() <= WIDTH {
            return flat;
        }
        let (outer, inner) = (" ".repeat(indent), " ".repeat(indent + 4));
        match self {
            Self::Any | Self::Null | Self::Name(_) => flat,
            Self::List(of) => {
                format!("list[\n{inner}{}\n{outer}]", of.written(indent + 4, indent + 4))
            }
            Self::Dict(of) => {
                format!(
                    "dict[\n{inner}str,\n{inner}{},\n{outer}]",
                    of.written(indent + 5, indent + 4)
                )
            }
            Self::Literal(values) => {
                let lines: String =
                    values.iter().map(|value| format!("{inner}{value},\n")).collect();
                format!("Literal[\n{lines}{outer}]")
            }
            Self::Union(of) => {
                let each: Vec<String> =
                    of.iter().map(|one| one.written(indent + 6, indent + 4)).collect();
                format!("(\n{inner}{}\n{outer})", each.join(&format!("\n{inner}| ")))
            }
        }
    }
}

/// A text as Python writes it.
pub(super) fn quoted(text: &str) -> String {
    let mut made = String::from("'");
    for c in text.chars() {
        match c {
            '\'' => made.push_str("\\'"),
            '\\' => made.push_str("\\\\"),
            '\n' => made.push_str("\\n"),
            '\r' => made.push_str("\\r"),
            '\t' => made.push_str("\\t"),
            // What is not seen, or turns the order of what is seen around.
            c if is_hidden(c) => made.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => made.push(c),
        }
    }
    made.push('\'');
    made
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A docstring: its text cannot end it, and lines are wrapped.
pub(super) fn docstring(paragraphs: &[String], indent: usize) -> String {
    let blanks = " ".repeat(indent);
    let width = WIDTH - indent;
    let mut lines: Vec<String> = Vec::new();
    for (index, paragraph) in paragraphs.iter().filter(|text| !text.trim().is_empty()).enumerate() {
        if index > 0 {
            lines.push(String::new());
        }
        for line in plain(paragraph).lines() {
            wrap(line, width - if lines.is_empty() { 6 } else { 0 }, &mut lines);
        }
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    if lines.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        if index > 0 && !line.is_empty() {
            text.push_str(&blanks);
        }
        text.push_str(line);
        if index + 1 < lines.len() {
            text.push('\n');
        }
    }
    // A quote at the end would run into the closing ones.
    let is_short = lines.len() == 1 && !text.ends_with('"');
    let end = if is_short { String::new() } else { format!("\n{blanks}") };
    format!("{blanks}\"\"\"{text}{end}\"\"\"\n")
}

/// Text for docstrings and comments.
pub(super) fn plain(text: &str) -> String {
    let kept = text.chars().filter(|c| *c == '\n' || !is_hidden(*c));
    let text: String = kept.collect();
    text.replace('\\', "\\\\").replace("\"\"\"", "'''")
}

fn wrap(line: &str, width: usize, into: &mut Vec<String>) {
    let mut made = String::new();
    for word in line.split_whitespace() {
        if !made.is_empty() && made.chars().count() + 1 + word.chars().count() > width {
            into.push(std::mem::take(&mut made));
        }
        if !made.is_empty() {
            made.push(' ');
        }
        made.push_str(word);
    }
    // One empty line is enough.
    if !made.is_empty() || into.last().is_some_and(|last| !last.is_empty()) {
        into.push(made);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_broken_where_they_are_too_long() {
        let short =
            Type::union([Type::Null, Type::list(Type::name("Pet")), Type::list(Type::name("Pet"))]);
        assert_eq!(short.written(0, 4), "list[Pet] | None");
        let values = ["'a'".to_owned(), "'b'".to_owned()];
        assert_eq!(
            Type::Literal(values.to_vec()).written(70, 4),
            "Literal[\n        'a',\n        'b',\n    ]"
        );
        assert_eq!(Type::union([short, Type::Any]), Type::Any);
    }

    #[test]
    fn a_text_cannot_leave_its_quotes() {
        assert_eq!(quoted("it's\n\\\u{202e}"), "'it\\'s\\n\\\\\\U0000202e'");
        let doc = docstring(&["a \"\"\" b \\".to_owned(), "say \"yes\"".to_owned()], 4);
        assert_eq!(doc, "    \"\"\"a ''' b \\\\\n\n    say \"yes\"\n    \"\"\"\n");
        let doc = docstring(&["say \"yes\"".to_owned()], 0);
        assert_eq!(doc, "\"\"\"say \"yes\"\n\"\"\"\n");
    }
}
