"""The events of a YAML stream: the one place that knows the parser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sevkit.documents.bounds import one_line
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST_TAG: Final = 80


def read_events(text: str, structure: str) -> Iterator[Any]:
    """Yield the parser's events, of every document of the stream as YAML 1.1.

    Whatever the parser raises over hostile text is a malformed document. Raises ``FormatError``.
    """
    from ruamel.yaml import YAML  # noqa: PLC0415  # 30 ms that a command without YAML does not pay
    from ruamel.yaml.error import MarkedYAMLError  # noqa: PLC0415  # as above
    from ruamel.yaml.parser import Parser  # noqa: PLC0415  # as above
    from ruamel.yaml.scanner import Scanner  # noqa: PLC0415  # as above
    from ruamel.yaml.tokens import DirectiveToken  # noqa: PLC0415  # as above

    escapes = {mark: text for mark, text in Scanner.ESCAPE_REPLACEMENTS.items() if mark != "/"}

    class KubectlScanner(Scanner):
        """Knows the escapes of YAML 1.1, which has none for a slash."""

        ESCAPE_REPLACEMENTS = escapes

    class KubectlParser(Parser):
        """YAML 1.1; refuses a long tag before it is decoded, which takes quadratic time."""

        def select_tag_transform(self, tag: Any) -> None:  # noqa: ANN401  # ruamel's tokens are untyped
            if tag is not None and len(tag.suffix or "") > _LONGEST_TAG:
                raise FormatError(structure, f"tag {tag.suffix[:_LONGEST_TAG]}… is not allowed")
            super().select_tag_transform(tag)

        def process_directives(self) -> Any:  # noqa: ANN401  # as above
            """Refuse directives; read every document, and not only the first, as YAML 1.1."""
            if self.scanner.check_token(DirectiveToken):
                line = self.scanner.peek_token().start_mark.line + 1
                raise FormatError(structure, f"a directive at line {line}")
            found = super().process_directives()
            self.loader.version = (1, 1)
            return found

    reader = YAML(typ="safe", pure=True)
    reader.Scanner = KubectlScanner
    reader.Parser = KubectlParser
    reader.version = (1, 1)
    events = reader.parse(text)
    while True:
        try:
            event = next(events)
        except StopIteration:
            return
        except FormatError:
            raise
        except MarkedYAMLError as error:
            mark = error.problem_mark
            where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            raise FormatError(
                structure, f"not YAML: {one_line(error.problem or error.context)}{where}"
            ) from error
        except Exception as error:  # also ArithmeticError, for a character beyond Unicode
            raise FormatError(structure, f"not YAML: {one_line(str(error))}") from error
        yield event
