"""From arms to effects: frames of records, position tables, comparisons, the rule and its decision."""
