//! Templates of response bodies: the part of the Handlebars language that manifests use.
//!
//! That is `{{path}}` (escaped for HTML), `{{{path}}}`, and `{{#if path}}…{{else}}…{{/if}}`.

use serde_json::{Value, json};

/// A template of a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sandbox) struct Template(Vec<Part>);

/// What a template may show.
#[derive(Clone, Copy, Debug)]
pub(in crate::sandbox) struct ResponseValues<'a> {
    pub(in crate::sandbox) request_body: &'a Value,
    pub(in crate::sandbox) status_code: u16,
    /// Empty if the call was carried out.
    pub(in crate::sandbox) error_message: &'a str,
    pub(in crate::sandbox) project_key: &'a str,
    pub(in crate::sandbox) environment_key: &'a str,
    pub(in crate::sandbox) segment_key: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value {
        pointer: String,
        is_escaped: bool,
    },
    If {
        pointer: String,
        then: Vec<Part>,
        otherwise: Vec<Part>,
    },
}

/// The value at a JSON pointer.
type Lookup<'a, 'f> = dyn Fn(&str) -> Option<&'a Value> + 'f;

/// What ends a run of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Template,
    Else,
    If,
}

/// Why a text is no template, or a template makes no JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::sandbox) enum TemplateError {
    #[error("{{{{{0}}}}} is not known; known are a path, #if with a path, else and /if")]
    Unknown(String),
    #[error("{{{{{0} is not closed by as many braces")]
    Unclosed(String),
    #[error("an #if, else or /if stands alone")]
    Unpaired,
    #[error("what it makes is not JSON: {0}")]
    NotJson(String),
}

impl Template {
    pub(super) fn read(source: &str) -> Result<Self, TemplateError> {
        let mut rest = source;
        let (parts, end) = parts(&mut rest)?;
        if end != End::Template {
            return Err(TemplateError::Unpaired);
        }
        let template = Self(parts);
        // Both branches of a failure are tried. A number is JSON in quotation marks and without.
        let (some, none) = (json!(1), json!(""));
        for error in [&some, &none] {
            template.make(&|pointer| match pointer {
                "/errorMessage" => Some(error),
                _ => Some(&some),
            })?;
        }
        Ok(template)
    }

    /// The body of a response.
    pub(in crate::sandbox) fn response(
        &self,
        values: ResponseValues<'_>,
    ) -> Result<Value, TemplateError> {
        let ResponseValues {
            project_key,
            environment_key,
            segment_key,
            ..
        } = values;
        let values = json!({
            "requestBody": values.request_body,
            "statusCode": values.status_code,
            "errorMessage": values.error_message,
            "projectKey": project_key,
            "environmentKey": environment_key,
            "segmentKey": segment_key,
            "segmentUrl": format!(
                "https://app.launchdarkly.com/{project_key}/{environment_key}/segments/{segment_key}"
            ),
        });
        self.make(&|pointer| values.pointer(pointer))
    }

    fn make<'a>(&self, value: &Lookup<'a, '_>) -> Result<Value, TemplateError> {
        let mut made = String::new();
        render(&self.0, value, &mut made);
        serde_json::from_str(&made).map_err(|error| TemplateError::NotJson(error.to_string()))
    }
}

fn parts(rest: &mut &str) -> Result<(Vec<Part>, End), TemplateError> {
    let mut parts = vec![];
    while let Some((text, after)) = rest.split_once("{{") {
        parts.push(Part::Text(text.to_owned()));
        let (tag, is_escaped) = tag(after, rest)?;
        match tag.trim() {
            "else" => return Ok((parts, End::Else)),
            "/if" => return Ok((parts, End::If)),
            tag => parts.push(match tag.strip_prefix("#if ") {
                Some(path) => condition(pointer(path)?, rest)?,
                None => Part::Value {
                    pointer: pointer(tag)?,
                    is_escaped,
                },
            }),
        }
    }
    parts.push(Part::Text((*rest).to_owned()));
    Ok((parts, End::Template))
}

/// The tag that was opened before `after`; leaves in `rest` what follows it.
fn tag<'a>(after: &'a str, rest: &mut &'a str) -> Result<(&'a str, bool), TemplateError> {
    let (after, close) = match after.strip_prefix('{') {
        Some(after) => (after, "}}}"),
        None => (after, "}}"),
    };
    let is_escaped = close.len() == 2;
    match after.split_once(close) {
        // Handlebars takes three braces for the other close.
        Some((tag, beyond)) if !(is_escaped && beyond.starts_with('}')) => {
            *rest = beyond;
            Ok((tag, is_escaped))
        }
        _ => Err(TemplateError::Unclosed(after.chars().take(20).collect())),
    }
}

fn condition(pointer: String, rest: &mut &str) -> Result<Part, TemplateError> {
    let (then, end) = parts(rest)?;
    let (otherwise, end) = match end {
        End::Else => parts(rest)?,
        _ => (vec![], end),
    };
    if end != End::If {
        return Err(TemplateError::Unpaired);
    }
    Ok(Part::If {
        pointer,
        then,
        otherwise,
    })
}

/// The JSON pointer of a path such as `requestBody.members.0`.
fn pointer(path: &str) -> Result<String, TemplateError> {
    let is_name = |name: &str| {
        let is_allowed = |c: char| c.is_alphanumeric() || "_-".contains(c);
        !name.is_empty() && name.chars().all(is_allowed)
    };
    let path = path.trim();
    if path.split('.').all(is_name) {
        Ok(format!("/{}", path.replace('.', "/")))
    } else {
        Err(TemplateError::Unknown(path.to_owned()))
    }
}

fn render(parts: &[Part], value: &Lookup<'_, '_>, made: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => made.push_str(text),
            Part::Value {
                pointer,
                is_escaped,
            } => {
                let shown = match value(pointer) {
                    None | Some(Value::Null) => String::new(),
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                };
                made.push_str(&if *is_escaped { escaped(&shown) } else { shown });
            }
            Part::If {
                pointer,
                then,
                otherwise,
            } => {
                let is_met = value(pointer).is_some_and(is_truthy);
                render(if is_met { then } else { otherwise }, value, made);
            }
        }
    }
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(_) => true,
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#x27;"),
            '`' => escaped.push_str("&#x60;"),
            '=' => escaped.push_str("&#x3D;"),
            c => escaped.push(c),
        }
    }
    escaped
}
