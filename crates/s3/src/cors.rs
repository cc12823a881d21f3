//! Which web pages may use a bucket ("Cross-origin resource sharing", S3 user guide).
//!
//! A browser asks first (a preflight: `OPTIONS`, unsigned), and then looks at the headers of the
//! answer that it gets. The rules only tell browsers what to let pages see; who may do what is decided
//! as ever.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, VARY,
};
use s3s::dto::{CORSConfiguration, CORSRule};
use s3s::{S3Result, s3_error};
use serde::{Deserialize, Serialize};

/// Most rules of a bucket.
const RULES_MAX: usize = 100;
const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "HEAD"];

/// The rules of a bucket; the first that fits counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rules(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rule {
    id: Option<String>,
    origins: Vec<String>,
    methods: Vec<String>,
    headers: Vec<String>,
    exposed: Vec<String>,
    max_age_s: Option<i32>,
}

impl Rules {
    /// # Errors
    /// `MalformedXML`, `InvalidRequest` for rules that S3 refuses.
    pub(crate) fn from_document(document: CORSConfiguration) -> S3Result<Self> {
        let rules = document.cors_rules;
        if rules.is_empty() || rules.len() > RULES_MAX {
            return Err(s3_error!(MalformedXML, "a bucket has 1 to {RULES_MAX} CORS rules"));
        }
        rules.into_iter().map(Rule::from_document).collect::<S3Result<_>>().map(Self)
    }

    pub(crate) fn into_document(self) -> Vec<CORSRule> {
        let rules = self.0.into_iter();
        rules
            .map(|rule| CORSRule {
                allowed_headers: (!rule.headers.is_empty()).then_some(rule.headers),
                allowed_methods: rule.methods,
                allowed_origins: rule.origins,
                expose_headers: (!rule.exposed.is_empty()).then_some(rule.exposed),
                id: rule.id,
                max_age_seconds: rule.max_age_s,
            })
            .collect()
    }

    /// The headers for a request of a page; `None` when no rule allows it.
    pub(crate) fn judge(&self, method: &str, request: &HeaderMap) -> Option<HeaderMap> {
        let origin = request.get(ORIGIN)?.to_str().ok()?;
        let names = request.get(ACCESS_CONTROL_REQUEST_HEADERS).map(|names| names.to_str());
        let names = names.transpose().ok()?.unwrap_or_default();
        let names: Vec<&str> =
            names.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let rule = self.0.iter().find(|rule| rule.allows(origin, method, &names))?;
        let mut headers = HeaderMap::new();
        let is_any = rule.origins.iter().any(|allowed| allowed == "*");
        set(&mut headers, ACCESS_CONTROL_ALLOW_ORIGIN, if is_any { "*" } else { origin });
        if !is_any {
            set(&mut headers, ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
        }
        set(&mut headers, ACCESS_CONTROL_ALLOW_METHODS, &rule.methods.join(", "));
        if !names.is_empty() {
            set(&mut headers, ACCESS_CONTROL_ALLOW_HEADERS, &names.join(", "));
        }
        if !rule.exposed.is_empty() {
            set(&mut headers, ACCESS_CONTROL_EXPOSE_HEADERS, &rule.exposed.join(", "));
        }
        if let Some(seconds) = rule.max_age_s {
            set(&mut headers, ACCESS_CONTROL_MAX_AGE, &seconds.to_string());
        }
        set(
            &mut headers,
            VARY,
            "Origin, Access-Control-Request-Headers, Access-Control-Request-Method",
        );
        Some(headers)
    }

    /// The method that a preflight asks about.
    pub(crate) fn asked_method(request: &HeaderMap) -> Option<&str> {
        request.get(ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()
    }
}

impl Rule {
    fn from_document(rule: CORSRule) -> S3Result<Self> {
        let headers = rule.allowed_headers.unwrap_or_default();
        for method in &rule.allowed_methods {
            if !METHODS.contains(&method.as_str()) {
                return Err(s3_error!(
                    InvalidRequest,
                    "found unsupported HTTP method in CORS config. Unsupported method is {method}"
                ));
            }
        }
        if rule.allowed_methods.is_empty() || rule.allowed_origins.is_empty() {
            return Err(s3_error!(MalformedXML, "a CORS rule allows methods and origins"));
        }
        let patterns = rule.allowed_origins.iter().chain(&headers);
        if let Some(pattern) = patterns.into_iter().find(|p| p.matches('*').count() > 1) {
            return Err(s3_error!(
                InvalidRequest,
                "{pattern:?} can not have more than one wildcard"
            ));
        }
        Ok(Self {
            id: rule.id,
            origins: rule.allowed_origins,
            methods: rule.allowed_methods,
            headers,
            exposed: rule.expose_headers.unwrap_or_default(),
            max_age_s: rule.max_age_seconds,
        })
    }

    fn allows(&self, origin: &str, method: &str, names: &[&str]) -> bool {
        let any = |patterns: &[String], text: &str| patterns.iter().any(|p| fits(p, text));
        let lower = |text: &str| text.to_ascii_lowercase();
        let headers: Vec<String> = self.headers.iter().map(|pattern| lower(pattern)).collect();
        any(&self.origins, origin)
            && self.methods.iter().any(|allowed| allowed == method)
            && names.iter().all(|name| any(&headers, &lower(name)))
    }
}

/// Whether a pattern with at most one `*` fits a text.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, end)) => {
            text.len() >= start.len() + end.len() && text.starts_with(start) && text.ends_with(end)
        }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_one_wildcard() {
        assert!(fits("*", "") && fits("http://*.a.com", "http://x.a.com") && fits("x", "x"));
        assert!(!fits("ab*ba", "aba") && !fits("x", "xy") && !fits("a*", "b"));
    }
}
