"""Where it runs: one loop, its oracle, and what turns generations into records."""
