"""A page as a browser would see it: its elements, attributes, links and text."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    @property
    def links(self) -> list[str]:
        """Every address that the page names."""
        return [str(value) for key, value in self.attributes if key in ("href", "src")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data
