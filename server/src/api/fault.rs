//! What the API answers when it does not do what it was asked: problem details (RFC 9457) with a stable code.
//!
//! A fault does not know its reader's language; [`told`] puts it into words where the request's headers are at hand.

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use directory::Denied;
use directory::Timestamp;
use directory::organisation::OrganisationError;
use directory::organisation::import::ImportError;
use directory::people::PeopleError;
use directory::place::PlaceError;
use directory::sign_in::{NotOnce, PasswordProblem, SignInError};
use directory::store::StoreError;
use serde_json::{Value, json};

use super::import::{PlanView, ProblemView};
use crate::problem::{Language, Words, problem};

/// How many characters are told of what can't be used.
const ABOUT: usize = 200;

/// Why something was not done.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    kind: Kind,
    retry_after: Option<u64>,
    /// A member of the problem beside the usual ones.
    more: Option<(&'static str, Value)>,
}

impl From<Kind> for Fault {
    fn from(kind: Kind) -> Fault {
        Fault {
            kind,
            retry_after: None,
            more: None,
        }
    }
}

impl Fault {
    pub(crate) fn retry_after(mut self, seconds: u64) -> Fault {
        self.retry_after = Some(seconds.max(1));
        self
    }

    pub(crate) fn with(mut self, name: &'static str, value: Value) -> Fault {
        self.more = Some((name, value));
        self
    }

    /// What was sent has a member that can't be read, or none that is needed.
    pub(crate) fn invalid(about: impl std::fmt::Display) -> Fault {
        // What was sent may stand in it.
        let about: String = about.to_string().chars().take(ABOUT).collect();
        Fault::from(Kind::Invalid).with("about", json!(about))
    }

    fn stale(current: u64) -> Fault {
        Fault::from(Kind::Stale).with("current", json!(current))
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = self.kind.words().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Puts faults into words, and lets nothing of the API be kept by caches.
pub(crate) async fn told(request: Request, next: Next) -> Response {
    let language = Language::of(request.headers());
    let mut response = next.run(request).await;
    if let Some(fault) = response.extensions_mut().remove::<Fault>() {
        response = problem(fault.kind.words(), language, fault.retry_after, fault.more);
    }
    let headers = response.headers_mut();
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

macro_rules! kinds {
    ($($name:ident $status:ident $code:literal $chinese:tt $english:tt)*) => {
        /// What can go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind { $($name,)* }

        impl Kind {
            /// All of them.
            #[cfg(test)]
            pub(crate) const ALL: &[Kind] = &[$(Kind::$name),*];

            pub(crate) fn words(self) -> Words {
                match self {
                    $(Kind::$name => (StatusCode::$status, $code, $chinese, $english),)*
                }
            }
        }
    };
}

kinds! {
    NotFound NOT_FOUND "not_found"
        ["没有找到", "没有这一项，或您无权知道它。", "请核对地址，或返回上一页重新选择。"]
        ["Not found", "There is no such thing, as far as you may know.", "Check the address, or go back and choose again."]
    MethodNotAllowed METHOD_NOT_ALLOWED "method_not_allowed"
        ["不支持这种请求", "这个地址不接受这种请求方法。", "请查阅 /api/openapi.json。"]
        ["Not this method", "This address takes no requests of this method.", "See /api/openapi.json."]
    Refused FORBIDDEN "refused"
        ["没有权限", "您的角色不能进行此操作；本次尝试已记录。", "如确有需要，请联系安全管理员授予角色。"]
        ["Not permitted", "None of your roles may do this; that it was tried is on record.", "If it is needed, ask the security administrator for a role."]
    ReasonNeeded FORBIDDEN "reason_needed"
        ["需要说明理由", "此操作须先说明理由，理由会记入审计日志。", "请填写理由后重试。"]
        ["A reason is needed", "This takes a reason, which is kept in the audit log.", "Say why, and try again."]
    SecondPersonNeeded FORBIDDEN "second_person_needed"
        ["需要另一人批准", "此操作须由另一人批准。", "请提交批准申请。"]
        ["Another person must approve", "This takes the approval of another person.", "Ask for the approval."]
    Stale PRECONDITION_FAILED "stale"
        ["内容已被他人修改", "在您查看之后，另一位管理员修改了此项；您的修改没有保存。", "请重新查看最新内容后再修改。"]
        ["Changed meanwhile", "Somebody else changed this since you looked at it; your change was not kept.", "Look at it as it is now, then change it."]
    VersionMissing PRECONDITION_REQUIRED "version_missing"
        ["缺少版本号", "修改时须在 If-Match 中注明所见的版本。", "请重新打开页面后重试。"]
        ["The version is missing", "A change says in If-Match which version was seen.", "Open the page anew and try again."]
    SignedOut UNAUTHORIZED "signed_out"
        ["尚未登录", "您没有登录，或会话已结束。", "请重新登录。"]
        ["Not signed in", "You are not signed in, or the session has ended.", "Sign in again."]
    SecondFactorNeeded FORBIDDEN "second_factor_needed"
        ["需要第二重验证", "您须先通过或设置第二重验证。", "请输入动态口令、使用通行密钥，或先设置其一。"]
        ["The second factor is missing", "You must give a second factor first, or set one up.", "Give a one-time password or passkey, or set one up."]
    StepUpNeeded FORBIDDEN "step_up_needed"
        ["请再次验证身份", "此操作较为重要，须在五分钟内验证过身份。", "请再次验证后重试。"]
        ["Prove who you are again", "This act takes a proof of who you are that is not older than five minutes.", "Prove it again, then try again."]
    Wrong FORBIDDEN "wrong"
        ["不正确", "姓名、密码、口令或密钥不正确。", "请核对后重试。"]
        ["Not right", "The name, password, code or key is not right.", "Check it and try again."]
    TooManyAttempts TOO_MANY_REQUESTS "too_many_attempts"
        ["尝试次数过多", "错误次数过多，暂时不能再试。", "请稍等片刻后重试。"]
        ["Too many attempts", "Too many attempts were wrong.", "Wait a little, then try again."]
    Busy SERVICE_UNAVAILABLE "busy"
        ["服务器繁忙", "同时进行的请求过多。", "请稍等片刻后重试。"]
        ["The server is busy", "Too many ask for this at once.", "Wait a moment, then try again."]
    TooManyStreams TOO_MANY_REQUESTS "too_many_streams"
        ["打开的页面过多", "您同时打开的页面过多。", "请关闭一些页面后重试。"]
        ["Too many pages", "You have too many pages open at once.", "Close some, then try again."]
    CrossSite FORBIDDEN "cross_site"
        ["请求来自其他网站", "为安全起见，不接受来自其他网站页面的请求。", "请在本系统的页面中操作。"]
        ["From another site", "Requests from other sites' pages are not taken.", "Use this deployment's own pages."]
    Unreadable BAD_REQUEST "unreadable"
        ["请求无法读取", "服务器无法读取这个请求。", "请刷新页面后重试。"]
        ["The request can't be read", "The server could not read this request.", "Reload the page and try again."]
    Invalid UNPROCESSABLE_ENTITY "invalid"
        ["内容不可用", "请求中的内容缺失或格式不符。", "请修改后重试。"]
        ["The content can't be used", "Something in the request is missing or not of its form.", "Change it and try again."]
    TooLarge PAYLOAD_TOO_LARGE "too_large"
        ["内容过大", "请求或文件超过允许的大小。", "请减小后重试。"]
        ["Too large", "The request or file is larger than is taken.", "Make it smaller and try again."]
    WrongType UNSUPPORTED_MEDIA_TYPE "wrong_type"
        ["内容类型不符", "须使用 application/json（导入文件除外）。", "请刷新页面后重试。"]
        ["Not this type", "The content type must be application/json, but for files to import.", "Reload the page and try again."]
    KeyReused CONFLICT "key_reused"
        ["请求标识已被使用", "这个 Idempotency-Key 已用于另一个请求。", "请刷新页面后重试。"]
        ["The key was used", "This Idempotency-Key was used for another request.", "Reload the page and try again."]
    Unanswered CONFLICT "unanswered"
        ["结果尚未确定", "同一请求正在处理，或处理时服务器中断。", "请先查看是否已经完成，再决定是否重试。"]
        ["No answer yet", "The same request is being done, or the server ended in its middle.", "Look whether it was done before you try again."]
    NameInvalid UNPROCESSABLE_ENTITY "name_invalid"
        ["名称不可用", "名称须为 1 至 64 个字，且不含控制字符。", "请修改名称后重试。"]
        ["The name can't be used", "A name has 1 to 64 characters and no control characters.", "Change the name and try again."]
    WrongLevel UNPROCESSABLE_ENTITY "wrong_level"
        ["层级不符", "综治中心须有层级，其他类型没有层级。", "请修改后重试。"]
        ["The level does not fit", "A centre has a level, and nothing else has.", "Change it and try again."]
    WrongParent UNPROCESSABLE_ENTITY "wrong_parent"
        ["上级机构不符", "层级必须低于上级机构，且上级须能下设机构。", "请另选上级机构。"]
        ["This can't be under that", "The level must be below that of the parent, which must be able to have others under it.", "Choose another parent."]
    Cycle UNPROCESSABLE_ENTITY "cycle"
        ["上下级关系成环", "机构不能位于自己之下。", "请另选上级机构。"]
        ["It would be under itself", "An organisation can't be under itself.", "Choose another parent."]
    CascadeCycle UNPROCESSABLE_ENTITY "cascade_cycle"
        ["级联关系成环", "只有综治中心有节点，且节点不能级联到自己。", "请另选级联上级。"]
        ["The node would join itself", "Only centres have nodes, and a node can't join itself.", "Choose another cascade parent."]
    CodeTaken CONFLICT "code_taken"
        ["区划代码已被使用", "另一机构正在使用这个区划代码。", "请核对代码。"]
        ["The code is taken", "Another organisation has this division code now.", "Check the code."]
    NotActive CONFLICT "not_active"
        ["已停用", "此项已停用、离任或尚未激活，不能修改。", "请返回上一页重新选择。"]
        ["Not in use", "This does not work any more, or not yet.", "Go back and choose again."]
    NotEmpty CONFLICT "not_empty"
        ["仍有下属内容", "仍有人员或下级机构。", "请先移走或停用它们。"]
        ["Not empty", "There are still people in it, or others under it.", "Move or close them first."]
    BadShare UNPROCESSABLE_ENTITY "bad_share"
        ["不能这样共享", "只能与旁系机构共享查看类内容，并须写明用途和一年内的期限。", "请修改后重试。"]
        ["This can't be shared", "Only what looks is shared, with another branch, for a purpose, for a year at most.", "Change it and try again."]
    ChildrenLeft UNPROCESSABLE_ENTITY "children_left"
        ["下级机构没有全部安排", "拆分须有两个以上去向，并说明每个下级机构归属何处。", "请补充后重试。"]
        ["Some have nowhere to go", "A split names two successors at least, and where each organisation under it goes.", "Say it for all and try again."]
    LoginInvalid UNPROCESSABLE_ENTITY "login_invalid"
        ["登录名不可用", "登录名须为 3 至 32 个小写字母、数字、点或连字符，以字母开头。", "请修改登录名。"]
        ["The sign-in name can't be used", "A sign-in name has 3 to 32 small letters, digits, dots and hyphens, and begins with a letter.", "Change it and try again."]
    LoginTaken CONFLICT "login_taken"
        ["登录名已被使用", "已有人使用这个登录名。", "请换一个登录名。"]
        ["The sign-in name is taken", "Somebody else has this sign-in name.", "Choose another one."]
    TwoAdministrators CONFLICT "two_administrators"
        ["三员须分设", "系统管理员、安全管理员、审计员须由三人分别担任。", "请另选人员。"]
        ["Three administrators are three people", "One person can't be two of system administrator, security administrator and auditor.", "Choose another person."]
    WrongRole UNPROCESSABLE_ENTITY "wrong_role"
        ["角色不符", "这里不能使用这个角色。", "请另选角色。"]
        ["Not this role", "This role can't be had here.", "Choose another role."]
    BadTerm UNPROCESSABLE_ENTITY "bad_term"
        ["期限或用途不符", "临时角色须写明用途，并在 90 天内结束。", "请修改后重试。"]
        ["The term does not fit", "A role for a time ends within 90 days and says what it is for.", "Change it and try again."]
    Oneself CONFLICT "oneself"
        ["不能对本人操作", "不能锁定自己或为自己办理离任。", "请由另一位管理员操作。"]
        ["Not to oneself", "Nobody locks or ends themselves.", "Ask another administrator."]
    BadInvitation GONE "bad_invitation"
        ["邀请链接已失效", "邀请链接已使用、已收回或已过期。", "请联系管理员重新邀请。"]
        ["The invitation is not good any more", "The link was used, was taken back or is too old.", "Ask an administrator for a new one."]
    BadPlace UNPROCESSABLE_ENTITY "bad_place"
        ["会场或功能室不符", "会场须有一块或两块屏幕，功能室至少有一种用途。", "请修改后重试。"]
        ["This can't be a hall or room", "A hall has one or two screens, a room at least one use.", "Change it and try again."]
    PasswordInvalid UNPROCESSABLE_ENTITY "password_invalid"
        ["密码不可用", "密码须至少 10 个字符、含三类字符（或至少 20 个字符），不含姓名，且不是常见或用过的密码。", "请换一个密码。"]
        ["The password can't be used", "A password has 10 characters of three kinds at least (or 20 of any), does not hold your name, and is neither common nor used before.", "Choose another one."]
    NoPasskeys CONFLICT "no_passkeys"
        ["不能使用通行密钥", "通行密钥需要域名；本系统通过 IP 地址访问，只能使用动态口令。", "请使用动态口令。"]
        ["No passkeys here", "Passkeys need a domain name; this deployment has one-time passwords only.", "Use one-time passwords."]
    SetUpAlready CONFLICT "set_up_already"
        ["已完成初始设置", "系统中已有人员，初始设置只能进行一次。", "请登录。"]
        ["Set up already", "There are people already; a deployment is set up once.", "Sign in."]
    SetUpWeak UNPROCESSABLE_ENTITY "set_up_weak"
        ["设置不安全", "三位管理员须是三个不同的人，姓名和登录名各不相同。", "请修改后重试。"]
        ["The settings are weak", "The three administrators are three people, with three names and three sign-in names.", "Change them and try again."]
    NotATable UNPROCESSABLE_ENTITY "not_a_table"
        ["文件无法识别", "文件不是 CSV，也不是可读取的 XLSX。", "请另存为 CSV 或 XLSX 后重试。"]
        ["Not a table", "The file is neither CSV nor a workbook that can be read.", "Save it as CSV or XLSX and try again."]
    ImportProblems UNPROCESSABLE_ENTITY "import_problems"
        ["文件中有问题", "文件中有需要先改正的行，没有导入任何内容。", "请按所列问题修改文件后重试。"]
        ["The file has problems", "Some lines must be put right first; nothing was imported.", "Put right what is listed, and try again."]
    ImportChanged CONFLICT "import_changed"
        ["内容已变化", "预览之后机构有了变化，没有导入任何内容。", "请查看新的预览后再确认。"]
        ["Changed meanwhile", "The directory was changed since the preview; nothing was imported.", "Look at the new preview, then confirm."]
    StoreFull INSUFFICIENT_STORAGE "database_full"
        ["数据库已满", "数据库没有剩余空间，没有保存任何修改。", "请联系运维人员释放磁盘空间。"]
        ["The database is full", "There is no room left; nothing was changed.", "Ask the operator to free some disk space."]
    StoreReadOnly SERVICE_UNAVAILABLE "database_read_only"
        ["数据库只读", "数据库目前不能写入，没有保存任何修改。", "请联系运维人员检查权限。"]
        ["The database can only be read", "Nothing can be written just now; nothing was changed.", "Ask the operator to check its permissions."]
    StoreLocked SERVICE_UNAVAILABLE "database_busy"
        ["数据库繁忙", "另一项写入耗时较长，没有保存任何修改。", "请稍等片刻后重试。"]
        ["The database is busy", "Somebody else has been writing for long; nothing was changed.", "Wait a moment, then try again."]
    StoreGone SERVICE_UNAVAILABLE "database_gone"
        ["数据库不可用", "数据库文件或服务器不可用。", "请联系运维人员。"]
        ["The database is gone", "Its file or server can't be reached.", "Ask the operator."]
    Internal INTERNAL_SERVER_ERROR "internal"
        ["服务器出错", "服务器内部出错，已记录。", "请稍后重试；如仍出错，请联系管理员。"]
        ["The server failed", "Something failed on the server; it was logged.", "Try again later, or ask the administrator."]
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        let kind = match &error {
            StoreError::Full => Kind::StoreFull,
            StoreError::ReadOnly => Kind::StoreReadOnly,
            StoreError::Locked => Kind::StoreLocked,
            StoreError::Gone => Kind::StoreGone,
            _ => Kind::Internal,
        };
        match &error {
            StoreError::Other(cause) => {
                tracing::error!(%error, %cause, "the directory's database failed: check its disk or server");
            }
            _ => {
                tracing::error!(%error, "the directory's database failed: check its disk or server")
            }
        }
        let fault = Fault::from(kind);
        match kind {
            Kind::StoreLocked | Kind::StoreGone => fault.retry_after(5),
            _ => fault,
        }
    }
}

impl From<Denied> for Fault {
    fn from(denied: Denied) -> Fault {
        match denied {
            Denied::NotFound => Kind::NotFound.into(),
            Denied::Refused(_) => Kind::Refused.into(),
            Denied::ReasonNeeded => Kind::ReasonNeeded.into(),
            Denied::SecondPersonNeeded => Kind::SecondPersonNeeded.into(),
            Denied::Store(error) => error.into(),
        }
    }
}

impl From<OrganisationError> for Fault {
    fn from(error: OrganisationError) -> Fault {
        match error {
            OrganisationError::Denied(denied) => denied.into(),
            OrganisationError::Stale { current } => Fault::stale(current),
            OrganisationError::BadName => Kind::NameInvalid.into(),
            OrganisationError::WrongLevel => Kind::WrongLevel.into(),
            OrganisationError::WrongParent => Kind::WrongParent.into(),
            OrganisationError::Cycle => Kind::Cycle.into(),
            OrganisationError::CascadeCycle => Kind::CascadeCycle.into(),
            OrganisationError::CodeTaken => Kind::CodeTaken.into(),
            OrganisationError::NotActive => Kind::NotActive.into(),
            OrganisationError::NotEmpty => Kind::NotEmpty.into(),
            OrganisationError::BadShare => Kind::BadShare.into(),
            OrganisationError::ChildrenLeft => Kind::ChildrenLeft.into(),
        }
    }
}

impl From<PeopleError> for Fault {
    fn from(error: PeopleError) -> Fault {
        match error {
            PeopleError::Denied(denied) => denied.into(),
            PeopleError::Organisation(error) => error.into(),
            PeopleError::Stale { current } => Fault::stale(current),
            PeopleError::BadName => Kind::NameInvalid.into(),
            PeopleError::BadLogin => Kind::LoginInvalid.into(),
            PeopleError::LoginTaken => Kind::LoginTaken.into(),
            PeopleError::OnePersonTwoAdministrators => Kind::TwoAdministrators.into(),
            PeopleError::WrongRole => Kind::WrongRole.into(),
            PeopleError::BadTerm => Kind::BadTerm.into(),
            PeopleError::NotActive => Kind::NotActive.into(),
            PeopleError::Oneself => Kind::Oneself.into(),
            PeopleError::NotEmpty => Kind::SetUpAlready.into(),
            PeopleError::BadInvitation => Kind::BadInvitation.into(),
        }
    }
}

impl From<PlaceError> for Fault {
    fn from(error: PlaceError) -> Fault {
        match error {
            PlaceError::Denied(denied) => denied.into(),
            PlaceError::Organisation(error) => error.into(),
            PlaceError::Stale { current } => Fault::stale(current),
            PlaceError::BadKind => Kind::BadPlace.into(),
            PlaceError::Closed => Kind::NotActive.into(),
        }
    }
}

impl From<SignInError> for Fault {
    fn from(error: SignInError) -> Fault {
        match error {
            SignInError::Wrong => Kind::Wrong.into(),
            SignInError::TooManyAttempts { until } => {
                let wait = until.since(Timestamp::from_millis(crate::meetings::now_ms()));
                Fault::from(Kind::TooManyAttempts).retry_after(wait.as_secs() + 1)
            }
            SignInError::Busy => Fault::from(Kind::Busy).retry_after(5),
            SignInError::SessionEnded => Kind::SignedOut.into(),
            SignInError::SecondFactorNeeded => Kind::SecondFactorNeeded.into(),
            SignInError::StepUpNeeded => Kind::StepUpNeeded.into(),
            SignInError::Password(problem) => {
                let why = match problem {
                    PasswordProblem::TooShort => "too_short",
                    PasswordProblem::TooLong => "too_long",
                    PasswordProblem::TooSimple => "too_simple",
                    PasswordProblem::HoldsName => "holds_name",
                    PasswordProblem::Breached => "breached",
                    PasswordProblem::UsedBefore => "used_before",
                };
                Fault::from(Kind::PasswordInvalid).with("why", json!(why))
            }
            SignInError::NoPasskeys => Kind::NoPasskeys.into(),
            SignInError::Denied(denied) => denied.into(),
            SignInError::People(error) => error.into(),
        }
    }
}

impl From<NotOnce> for Fault {
    fn from(error: NotOnce) -> Fault {
        match error {
            NotOnce::Another => Kind::KeyReused.into(),
            NotOnce::Unanswered => Kind::Unanswered.into(),
            NotOnce::TooMany => Fault::from(Kind::TooManyAttempts).retry_after(3600),
            NotOnce::Store(error) => error.into(),
        }
    }
}

impl From<ImportError> for Fault {
    fn from(error: ImportError) -> Fault {
        match error {
            ImportError::Denied(denied) => denied.into(),
            ImportError::TooLarge => Kind::TooLarge.into(),
            ImportError::NotATable => Kind::NotATable.into(),
            ImportError::Problems(problems) => {
                let problems: Vec<ProblemView> = problems.iter().map(Into::into).collect();
                Fault::from(Kind::ImportProblems).with("problems", json!(problems))
            }
            ImportError::ChangedMeanwhile(plan) => {
                Fault::from(Kind::ImportChanged).with("plan", json!(PlanView::from(&*plan)))
            }
            ImportError::Organisation(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_a_code_of_its_own_and_words_in_both_languages() {
        let mut codes = std::collections::HashSet::new();
        for kind in Kind::ALL {
            let (status, code, chinese, english) = kind.words();
            assert!(codes.insert(code), "{code} is there twice");
            assert!(status.is_client_error() || status.is_server_error());
            for words in chinese.iter().chain(&english) {
                assert!(!words.is_empty(), "{code}");
            }
        }
    }
}
