//! Errors for people's browsers: RFC 9457 problem details in the visitor's language.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// A language that this server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// 简体中文.
    Chinese,
    /// English.
    English,
}

impl Language {
    /// The best of `Accept-Language` (RFC 9110 12.5.4); Chinese when nothing fits.
    pub(crate) fn of(headers: &HeaderMap) -> Language {
        let accepted = headers
            .get(header::ACCEPT_LANGUAGE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let mut best = (0.0, Language::Chinese);
        for part in accepted.split(',').take(32) {
            let mut pieces = part.trim().split(';');
            let tag = pieces
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase();
            let weight: f32 = pieces
                .find_map(|piece| piece.trim().strip_prefix("q="))
                .map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            let language = match tag.split('-').next() {
                Some("zh") => Language::Chinese,
                Some("en") => Language::English,
                _ => continue,
            };
            if weight > best.0 {
                best = (weight, language);
            }
        }
        best.1
    }
}

/// What can go wrong at the meeting door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No meeting has this code.
    MeetingNotFound,
    /// The meeting is over.
    MeetingEnded,
    /// Too many wrong codes.
    TooManyAttempts,
    /// The name is empty, too long or has control characters.
    InvalidName,
    /// The request's body can't be read.
    InvalidRequest,
    /// The server is restarting.
    Draining,
    /// No place for more.
    ServerFull,
    /// The media core has no time for more.
    Overloaded,
    /// No such address under `/api`.
    NotFound,
    /// Something of ours failed.
    Internal,
}

/// A problem with the language it is told in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem {
    kind: Kind,
    language: Language,
    retry_after: Option<u64>,
}

/// Status, code, and title, detail and next step in Chinese and English.
pub(crate) type Words = (
    StatusCode,
    &'static str,
    [&'static str; 3],
    [&'static str; 3],
);

impl Kind {
    /// Status, code, and title, detail and next step in Chinese and English.
    fn words(self) -> Words {
        match self {
            Kind::MeetingNotFound => (
                StatusCode::NOT_FOUND,
                "meeting_not_found",
                [
                    "没有这个会议",
                    "没有会议使用这个会议号。",
                    "请核对会议号,或向会议组织者询问。",
                ],
                [
                    "No such meeting",
                    "No meeting has this code.",
                    "Check the code, or ask whoever invited you.",
                ],
            ),
            Kind::MeetingEnded => (
                StatusCode::GONE,
                "meeting_ended",
                [
                    "会议已结束",
                    "这个会议已经结束,不能再加入。",
                    "如需继续,请向会议组织者索取新的会议号。",
                ],
                [
                    "The meeting has ended",
                    "This meeting is over and can't be joined any more.",
                    "Ask whoever invited you for a new code.",
                ],
            ),
            Kind::TooManyAttempts => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_attempts",
                [
                    "尝试次数过多",
                    "错误的会议号输入过多,暂时不能再试。",
                    "请稍等片刻后重试。",
                ],
                [
                    "Too many attempts",
                    "Too many wrong codes were entered.",
                    "Wait a little, then try again.",
                ],
            ),
            Kind::InvalidName => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_name",
                [
                    "姓名不可用",
                    "姓名须为 1 至 64 个字,且不含控制字符。",
                    "请修改姓名后重试。",
                ],
                [
                    "The name can't be used",
                    "A name has 1 to 64 characters and no control characters.",
                    "Change the name and try again.",
                ],
            ),
            Kind::InvalidRequest => (
                StatusCode::BAD_REQUEST,
                "invalid_request",
                [
                    "请求无法读取",
                    "服务器无法读取这个请求。",
                    "请刷新页面后重试。",
                ],
                [
                    "The request can't be read",
                    "The server could not read this request.",
                    "Reload the page and try again.",
                ],
            ),
            Kind::Draining => (
                StatusCode::SERVICE_UNAVAILABLE,
                "draining",
                [
                    "服务器正在重启",
                    "服务器即将重启,暂不接受新的加入。",
                    "请稍等片刻,页面会自动重试。",
                ],
                [
                    "The server is restarting",
                    "The server is about to restart and lets nobody in just now.",
                    "Wait a moment; the page tries again by itself.",
                ],
            ),
            Kind::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                [
                    "服务器繁忙",
                    "服务器负荷已满,为不影响正在进行的会议,暂不接受新的加入。",
                    "请稍等片刻,页面会自动重试。",
                ],
                [
                    "The server is busy",
                    "The server lets nobody in just now, so as not to disturb the meetings that go on.",
                    "Wait a moment; the page tries again by itself.",
                ],
            ),
            Kind::ServerFull => (
                StatusCode::SERVICE_UNAVAILABLE,
                "server_full",
                [
                    "服务器已满",
                    "服务器上的参会人数已达上限。",
                    "请稍后重试,或联系管理员。",
                ],
                [
                    "The server is full",
                    "As many people as this server allows are in meetings now.",
                    "Try again later, or ask the administrator.",
                ],
            ),
            Kind::NotFound => (
                StatusCode::NOT_FOUND,
                "not_found",
                ["没有这个地址", "服务器上没有这个地址。", "请核对网址。"],
                [
                    "No such address",
                    "There is nothing at this address.",
                    "Check the address.",
                ],
            ),
            Kind::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                [
                    "服务器出错",
                    "服务器内部出错,已记录。",
                    "请稍后重试;如仍出错,请联系管理员。",
                ],
                [
                    "The server failed",
                    "Something failed on the server; it was logged.",
                    "Try again later, or ask the administrator.",
                ],
            ),
        }
    }

    /// The problem in a language.
    pub(crate) fn told(self, language: Language) -> Problem {
        let retry_after = match self {
            Kind::Draining | Kind::Overloaded => Some(5),
            Kind::ServerFull => Some(30),
            _ => None,
        };
        Problem {
            kind: self,
            language,
            retry_after,
        }
    }
}

impl Problem {
    /// Says when to try again, in seconds.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Problem {
        self.retry_after = Some(seconds);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        problem(self.kind.words(), self.language, self.retry_after, None)
    }
}

/// The answer that tells a problem, perhaps with a member beside the usual ones.
pub(crate) fn problem(
    words: Words,
    language: Language,
    retry_after: Option<u64>,
    more: Option<(&'static str, serde_json::Value)>,
) -> Response {
    let (status, code, chinese, english) = words;
    let [title, detail, next] = match language {
        Language::Chinese => chinese,
        Language::English => english,
    };
    let mut body = serde_json::json!({
        "type": format!("urn:terrace:problem:{code}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
        "next": next,
    });
    if let Some((name, value)) = more {
        body[name] = value;
    }
    let mut response = (status, body.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-language"));
    headers.insert(
        header::CONTENT_LANGUAGE,
        HeaderValue::from_static(match language {
            Language::Chinese => "zh-CN",
            Language::English => "en",
        }),
    );
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_visitors_language_is_chosen() {
        for (value, expected) in [
            ("", Language::Chinese),
            ("en", Language::English),
            ("en-GB,en;q=0.9", Language::English),
            ("zh-CN,zh;q=0.9,en;q=0.8", Language::Chinese),
            ("en;q=0.5, zh;q=0.8", Language::Chinese),
            ("fr, de;q=0.9", Language::Chinese),
            ("fr, en;q=0.1", Language::English),
            ("en;q=x", Language::Chinese),
        ] {
            assert_eq!(Language::of(&accepting(value)), expected, "{value}");
        }
    }

    #[test]
    fn a_problem_carries_its_status_code_and_when_to_retry() {
        let response = Kind::TooManyAttempts
            .told(Language::English)
            .retry_after(7)
            .into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "7");
        assert!(
            response.headers()[header::CONTENT_TYPE]
                .to_str()
                .unwrap()
                .starts_with("application/problem+json")
        );
    }
}
