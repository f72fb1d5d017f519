"""The documentation site, from the repository's Markdown and its code: docs/adr/0071-documentation-site.md."""
