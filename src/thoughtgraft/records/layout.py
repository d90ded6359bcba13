"""Where things lie in a run folder."""

SPEC_FILE = "run.json"
STARTS_FILE = "starts.json"
CERTIFICATE_FILE = "certificate.json"
HEARTBEAT_FILE = "heartbeat.json"
LOCK_FILE = "run.lock"
RECORDS_FOLDER = "records"
QUARANTINE_FOLDER = "quarantine"
