-- What was asked for under a key of the asker's choice, and what was answered; kept for a day.
CREATE TABLE once_requests (
    actor TEXT NOT NULL,
    once_key TEXT NOT NULL,
    digest TEXT NOT NULL,
    begun_at BIGINT NOT NULL,
    status BIGINT,
    -- Sealed, as it may hold what is shown once.
    answer BLOB,
    PRIMARY KEY (actor, once_key)
);
CREATE INDEX once_requests_begun_at ON once_requests (begun_at);
