"""The screen: one short record per task, and the few modules that turn a record into a page."""
