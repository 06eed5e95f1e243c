"""Short names for types, as services of the 3.2 dialect annotate with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import (
    IO,
    TYPE_CHECKING,
    Any,
    BinaryIO,
    Callable,
    ClassVar,
    Dict,
    Final,
    Generator,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    NoReturn,
    Optional,
    Set,
    TextIO,
    Tuple,
    Type,
    TypeVar,
    Union,
    cast,
)

any_ = Any
anydict = Dict[Any, Any]
anydictnone = Optional[Dict[Any, Any]]
anygen = Generator[Any, Any, Any]
anyiter = Iterable[Any]
anylist = List[Any]
anylistnone = Optional[List[Any]]
anynone = Optional[Any]
anyset = Set[Any]
anysetnone = Optional[Set[Any]]
anytuple = Tuple[Any, ...]
anytuplenone = Optional[Tuple[Any, ...]]
binaryio_ = BinaryIO
boolnone = Optional[bool]
byteslist = List[bytes]
bytesnone = Optional[bytes]
callable_ = Callable[..., Any]
callnone = Optional[Callable[..., Any]]
cast_ = cast
class_ = Type[Any]
classvar_ = ClassVar
date_ = date
datetime_ = datetime
datetimez = datetime
dict_ = Dict
dictlist = List[Dict[Any, Any]]
dictnone = Optional[Dict[Any, Any]]
floatnone = Optional[float]
final_ = Final
generator_ = Generator
intanydict = Dict[int, Any]
intdict = Dict[int, int]
intlist = List[int]
intlistnone = Optional[List[int]]
intnone = Optional[int]
intset = Set[int]
intsetnone = Optional[Set[int]]
intstr = Union[int, str]
intstrdict = Dict[int, str]
io_ = IO
iterable_ = Iterable
iterator_ = Iterator
list_ = List
listnone = Optional[List[Any]]
named_ = NamedTuple
noreturn = NoReturn
optional = Optional
set_ = Set
stranydict = Dict[str, Any]
strbool = Union[str, bool]
strboolnone = Optional[Union[str, bool]]
strbytes = Union[str, bytes]
strcalldict = Dict[str, Callable[..., Any]]
strdict = Dict[str, Any]
strdictdict = Dict[str, Dict[str, Any]]
strdictlist = List[Dict[str, Any]]
strdictnone = Optional[Dict[str, Any]]
strint = Union[str, int]
strintbool = Union[str, int, bool]
strintdict = Dict[str, int]
strintnone = Optional[Union[str, int]]
strlist = List[str]
strlistdict = Dict[str, List[str]]
strlistempty = List[str]
strlistnone = Optional[List[str]]
strnone = Optional[str]
strordict = Union[str, Dict[str, Any]]
strordictnone = Optional[Union[str, Dict[str, Any]]]
strorlist = Union[str, List[Any]]
strset = Set[str]
strsetnone = Optional[Set[str]]
strstrdict = Dict[str, str]
strtuple = Tuple[str, ...]
textio_ = TextIO
textionone = Optional[TextIO]
tuple_: Any = Tuple
tupnone = Optional[Tuple[Any, ...]]
type_ = Type
typevar_ = TypeVar
union_ = Union

list_field: Any = lambda: field(default_factory=list)  # noqa: E731 - a field, by the name services know
dict_field: Any = lambda: field(default_factory=dict)  # noqa: E731

__all__ = [name for name in dir() if not name.startswith("_") and name != "annotations"]

