"""English texts spelled out: the table of readings."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engines.speech.hibari_model import parted
from worker.engines.speech.text_english import spell_out
from worker.engines.speech.text_numbers import cardinal, ordinal, roman, year

NUMBERS = """
0 | zero
7 | seven
13 | thirteen
21 | twenty-one
100 | one hundred
105 | one hundred five
999 | nine hundred ninety-nine
1,000 | one thousand
1024 | one thousand twenty-four
12,345 | twelve thousand three hundred forty-five
1,234,567 | one million two hundred thirty-four thousand five hundred sixty-seven
1000000007 | one billion seven
3.14 | three point one four
1,234.5 | one thousand two hundred thirty-four point five
-5 | minus five
−12.5 | minus twelve point five
.5 | zero point five
007 | zero zero seven
1234567890123456 | one two three four five six seven eight nine zero one two three four five six
2.5 million | two point five million
10k runners | ten thousand runners
10–15 people | ten to fifteen people
pages 3-5 | pages three to five
They won 5-4. | They won five to four.
1/2 | one half
3/4 of it | three quarters of it
7/8 | seven eighths
1/100 | one hundredth
2 1/2 hours | two and a half hours
½ cup | one half cup
1½ cups | one and a half cups
24/7 | twenty-four seven
50/50 | fifty-fifty
17/4 | seventeen over four
99.9% | ninety-nine point nine percent
5 % | five percent
1st | first
2nd | second
3rd | third
12th | twelfth
20th | twentieth
21st | twenty-first
100th | one hundredth
1,000th | one thousandth
the 747s | the seven hundred forty-sevens
5 + 3 = 8 | five plus three equals eight
2 × 3 | two times three
1920x1080 | nineteen twenty by ten eighty
3x faster | three times faster
±2 | plus or minus two
~5 | about five
v2.0 | version two point zero
v1.2.3 | version one point two point three
192.168.0.1 | one ninety-two dot one sixty-eight dot zero dot one
Room 101 | Room one oh one
Boeing 747 | Boeing seven forty-seven
Flight 1204 | Flight twelve oh four
Call 911. | Call nine one one.
No. 5 | number five
#5 | number five
Fig. 3 | figure three
p. 12 | page twelve
pp. 3-5 | pages three to five
COVID-19 | COVID nineteen
F-16 | F sixteen
A4 paper | A four paper
5'10" tall | five feet ten inches tall
"""
DATES = """
in 1984 | in nineteen eighty-four
since 1905 | since nineteen oh five
in 1900 | in nineteen hundred
in 2007 | in two thousand seven
in 2026 | in twenty twenty-six
the year 2000 | the year two thousand
1999 | nineteen ninety-nine
In 1066, they came. | In ten sixty-six, they came.
1500 people | one thousand five hundred people
He owns 2000 books. | He owns two thousand books.
the 1990s | the nineteen nineties
the '80s | the eighties
the 1980's | the nineteen eighties
the mid-1990s | the mid-nineteen nineties
1939–1945 | nineteen thirty-nine to nineteen forty-five
1914-18 | nineteen fourteen to eighteen
2026-11-22 | November twenty-second, twenty twenty-six
Nov 22 | November twenty-second
Nov. 22, 2026 | November twenty-second, twenty twenty-six
November 22nd | November twenty-second
May 5 | May fifth
22 November 2026 | the twenty-second of November, twenty twenty-six
the 22nd of November | the twenty-second of November
22/11/2026 | November twenty-second, twenty twenty-six
11/22/2026 | November twenty-second, twenty twenty-six
03/04/2026 | March fourth, twenty twenty-six
22.11.2026 | November twenty-second, twenty twenty-six
March 2026 | March twenty twenty-six
10:30 am | ten thirty A M
10:30 | ten thirty
9:00 | nine o'clock
14:00 | fourteen hundred
14:05 | fourteen oh five
9:05 p.m. | nine oh five P M.
at 10 a.m. sharp | at ten A M sharp
10am | ten A M
12:30:45 | twelve thirty and forty-five seconds
"""
QUANTITIES = """
$5 | five dollars
$1 | one dollar
$3.50 | three dollars and fifty cents
$0.99 | ninety-nine cents
$1.01 | one dollar and one cent
$3.5bn | three point five billion dollars
$1.5 million | one point five million dollars
$20k | twenty thousand dollars
$1,234.56 | one thousand two hundred thirty-four dollars and fifty-six cents
-$20 | minus twenty dollars
$10–20 | ten to twenty dollars
US$40 | forty U S dollars
5 USD | five U S dollars
€12.99 | twelve euros and ninety-nine cents
EUR 7.20 | seven euros and twenty cents
£1,000 | one thousand pounds
£2.50 | two pounds and fifty pence
¥500 | five hundred yen
99p | ninety-nine pence
50¢ | fifty cents
60 km/h | sixty kilometers per hour
20°C | twenty degrees Celsius
-5 °C | minus five degrees Celsius
72 °F | seventy-two degrees Fahrenheit
10 kg | ten kilograms
1 kg | one kilogram
10-15 kg | ten to fifteen kilograms
3.5 GB | three point five gigabytes
16 GB of RAM | sixteen gigabytes of RAM
24 fps | twenty-four frames per second
100 m² | one hundred square meters
5 min | five minutes
in 5s | in five seconds
25m | twenty-five meters
a 5-km run | a five kilometer run
2.4 GHz | two point four gigahertz
"""
PHONES_AND_ADDRESSES = """
555-1234 | five five five, one two three four
555-123-4567 | five five five, one two three, four five six seven
(555) 123-4567 | five five five, one two three, four five six seven
+1 (555) 123-4567 | plus one, five five five, one two three, four five six seven
+44 20 7946 0958 | plus four four, two zero, seven nine four six, zero nine five eight
example.com | example dot com
Visit www.example.org. | Visit example dot org.
https://www.example.com/path?x=1 | example dot com slash path question mark x equals one
jane.doe@example.co.uk | jane dot doe at example dot co dot U K
@home | at home
#winning | hashtag winning
main.py | main dot py
"""
WORDS = """
Dr. Smith | Doctor Smith
Mr. & Mrs. Jones | Mister and Missus Jones
St. John's | Saint John's
12 Main St. | twelve Main Street
e.g. this | for example this
i.e. that | that is that
apples, pears, etc. | apples, pears, et cetera.
Smith vs. Jones | Smith versus Jones
approx. 5 | approximately five
the U.S. Army | the U S Army
made in the U.S. | made in the U S.
Ph.D. | P H D
the FBI | the F B I
NASA | NASA
two PDFs | two P D Fs
the CEO's car | the C E O's car
AT&T | A T and T
R&D | R and D
you & me | you and me
and/or | and or
C++ | C plus plus
C# | C sharp
Louis XIV | Louis the fourteenth
Henry VIII's wives | Henry the eighth's wives
Elizabeth I was queen. | Elizabeth the first was queen.
Charles I think | Charles I think
Pope John Paul II | Pope John Paul the second
World War II | World War two
chapter IV | chapter four
STOP SHOUTING AT ME NOW | stop shouting at me now
**bold** text | bold text
[a link](http://example.com) | a link
She said—well—nothing. | She said, well, nothing.
I love it 😀! | I love it!
© 2026 | copyright twenty twenty-six
I like it. | I like it.
Don't! | Don't!
naïve café | naïve café
"""
BRITISH = """
105 | one hundred and five
1,005 | one thousand and five
1,234,567 | one million two hundred and thirty-four thousand five hundred and sixty-seven
in 2007 | in two thousand and seven
03/04/2026 | the third of April, twenty twenty-six
2026-11-22 | the twenty-second of November, twenty twenty-six
"""


def table(text: str) -> list[tuple[str, str]]:
    pairs = [line.partition(" | ") for line in text.strip().splitlines()]
    return [(given, said) for given, _, said in pairs]


AMERICAN = table(NUMBERS + DATES + QUANTITIES + PHONES_AND_ADDRESSES + WORDS)


@pytest.mark.parametrize(("given", "said"), AMERICAN)
def test_reading(given: str, said: str) -> None:
    assert spell_out(given) == said


@pytest.mark.parametrize(("given", "said"), table(BRITISH))
def test_british_reading(given: str, said: str) -> None:
    assert spell_out(given, british=True) == said


def test_letters_are_dotted_for_voices_that_know_them_so() -> None:
    assert (
        spell_out("the FBI at 9 a.m. in the U.S.", dotted=True)
        == "the F.B.I. at nine A.M. in the U.S."
    )
    assert spell_out("two PDFs", dotted=True) == "two P.D.F.s"


@given(st.text(max_size=200))
def test_any_text_is_spelled_without_digits_or_errors(text: str) -> None:
    said = spell_out(text)
    assert re.search(r"[0-9]", said) is None
    assert said == said.strip()


def test_signs_that_count_as_digits_and_are_no_numbers_do_not_stop_an_address() -> None:
    assert spell_out("write to info@m².de") == "write to info at m ² dot D E"


@given(st.text(alphabet="0123456789.,-/:$%'°kgKm xXIVa+()", max_size=60))
def test_any_heap_of_numbers_is_spelled_without_digits(text: str) -> None:
    assert re.search(r"\d", spell_out(text)) is None


@given(st.integers(0, 10**36 - 1))
def test_ordinals_and_cardinals_agree_but_for_the_last_word(number: int) -> None:
    words, last = cardinal(number).rpartition(" ")[::2]
    assert ordinal(number).startswith(words)
    assert ordinal(number) != cardinal(number)
    assert last


def test_years_and_roman_numerals() -> None:
    assert [year(n) for n in (1100, 1901, 2000, 2009, 2010)] == [
        "eleven hundred",
        "nineteen oh one",
        "two thousand",
        "two thousand nine",
        "twenty ten",
    ]
    assert [roman(text) for text in ("XIV", "MCMXCIX", "IIII", "IC", "ABC")] == [
        14, 1999, None, None, None,
    ]  # fmt: skip


def test_ten_thousand_characters_take_no_time_worth_naming() -> None:
    """Patterns must not backtrack: text that nearly matches everything is read like any other."""
    for text in (
        "1" * 10_000,
        "1,1" * 3_000,
        "a." * 5_000,
        "$" * 10_000,
        "[" * 10_000,
        "1-" * 5_000,
    ):
        assert re.search(r"[0-9]", spell_out(text)) is None


def test_only_long_chains_of_hyphens_are_taken_apart() -> None:
    assert parted("a state-of-the-art lamp") == "a state-of-the-art lamp"
    assert parted("a " + "b-" * 9 + "c") == "a " + "b " * 9 + "c"
