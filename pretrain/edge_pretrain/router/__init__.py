"""The lightweight router: tables distilled from all-MiniLM-L6-v2, trained and judged (docs/router.md)."""
