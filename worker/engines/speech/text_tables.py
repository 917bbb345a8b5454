"""Words that stand for abbreviations, units, currencies and symbols in English."""

from __future__ import annotations

from worker.engines.speech.text_numbers import listed

JOINT = "\u2060"
"""Follows each letter that is said by its name, while a text is being spelled out."""

MONTHS = listed("""
    January February March April May June July August September October November December
""")
MONTH_NAMES = {
    **{name.lower(): name for name in MONTHS},
    **{name[:3].lower(): name for name in MONTHS},
    "sept": "September",
}

UNITS: dict[str, tuple[str, str]] = {
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "kph": ("kilometer per hour", "kilometers per hour"),
    "mph": ("mile per hour", "miles per hour"),
    "m/s": ("meter per second", "meters per second"),
    "km²": ("square kilometer", "square kilometers"),
    "km2": ("square kilometer", "square kilometers"),
    "m²": ("square meter", "square meters"),
    "m2": ("square meter", "square meters"),
    "m³": ("cubic meter", "cubic meters"),
    "sq ft": ("square foot", "square feet"),
    "km": ("kilometer", "kilometers"),
    "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"),
    "µm": ("micrometer", "micrometers"),
    "nm": ("nanometer", "nanometers"),
    "m": ("meter", "meters"),
    "mi": ("mile", "miles"),
    "ft": ("foot", "feet"),
    "in.": ("inch", "inches"),
    "yd": ("yard", "yards"),
    "kg": ("kilogram", "kilograms"),
    "mg": ("milligram", "milligrams"),
    "µg": ("microgram", "micrograms"),
    "g": ("gram", "grams"),
    "lb": ("pound", "pounds"),
    "lbs": ("pound", "pounds"),
    "oz": ("ounce", "ounces"),
    "l": ("liter", "liters"),
    "L": ("liter", "liters"),
    "ml": ("milliliter", "milliliters"),
    "mL": ("milliliter", "milliliters"),
    "KB": ("kilobyte", "kilobytes"),
    "kB": ("kilobyte", "kilobytes"),
    "MB": ("megabyte", "megabytes"),
    "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"),
    "PB": ("petabyte", "petabytes"),
    "GiB": ("gibibyte", "gibibytes"),
    "MiB": ("mebibyte", "mebibytes"),
    "kbps": ("kilobit per second", "kilobits per second"),
    "Mbps": ("megabit per second", "megabits per second"),
    "Gbps": ("gigabit per second", "gigabits per second"),
    "MB/s": ("megabyte per second", "megabytes per second"),
    "GB/s": ("gigabyte per second", "gigabytes per second"),
    "Hz": ("hertz", "hertz"),
    "kHz": ("kilohertz", "kilohertz"),
    "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"),
    "W": ("watt", "watts"),
    "kW": ("kilowatt", "kilowatts"),
    "MW": ("megawatt", "megawatts"),
    "GW": ("gigawatt", "gigawatts"),
    "kWh": ("kilowatt hour", "kilowatt hours"),
    "mAh": ("milliamp hour", "milliamp hours"),
    "V": ("volt", "volts"),
    "kV": ("kilovolt", "kilovolts"),
    "dB": ("decibel", "decibels"),
    "ms": ("millisecond", "milliseconds"),
    "µs": ("microsecond", "microseconds"),
    "ns": ("nanosecond", "nanoseconds"),
    "s": ("second", "seconds"),
    "sec": ("second", "seconds"),
    "secs": ("second", "seconds"),
    "min": ("minute", "minutes"),
    "mins": ("minute", "minutes"),
    "h": ("hour", "hours"),
    "hr": ("hour", "hours"),
    "hrs": ("hour", "hours"),
    "fps": ("frame per second", "frames per second"),
    "px": ("pixel", "pixels"),
    "MP": ("megapixel", "megapixels"),
    "ha": ("hectare", "hectares"),
    "kcal": ("kilocalorie", "kilocalories"),
    "°C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "℃": ("degree Celsius", "degrees Celsius"),
    "°": ("degree", "degrees"),
    "%": ("percent", "percent"),
}

CURRENCIES: dict[str, tuple[str, str, str, str]] = {
    "US$": ("U.S. dollar", "U.S. dollars", "cent", "cents"),
    "A$": ("Australian dollar", "Australian dollars", "cent", "cents"),
    "C$": ("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "NZ$": ("New Zealand dollar", "New Zealand dollars", "cent", "cents"),
    "HK$": ("Hong Kong dollar", "Hong Kong dollars", "cent", "cents"),
    "R$": ("real", "reais", "centavo", "centavos"),
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "jeon", "jeon"),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
    "₿": ("bitcoin", "bitcoins", "cent", "cents"),
}
CURRENCY_CODES = {
    "USD": "US$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "KRW": "₩", "AUD": "A$",
    "CAD": "C$",
}  # fmt: skip
MAGNITUDES = {
    "k": "thousand",
    "m": "million",
    "mn": "million",
    "mln": "million",
    "b": "billion",
    "bn": "billion",
    "t": "trillion",
    "tn": "trillion",
    "trn": "trillion",
}

ABBREVIATIONS = {
    "Dr.": "Doctor",
    "Mr.": "Mister",
    "Mrs.": "Missus",
    "Ms.": "Miz",
    "Prof.": "Professor",
    "Gen.": "General",
    "Col.": "Colonel",
    "Capt.": "Captain",
    "Lt.": "Lieutenant",
    "Sgt.": "Sergeant",
    "Rev.": "Reverend",
    "Hon.": "Honorable",
    "Gov.": "Governor",
    "Sen.": "Senator",
    "Rep.": "Representative",
    "Jr.": "Junior",
    "Sr.": "Senior",
    "Ave.": "Avenue",
    "Blvd.": "Boulevard",
    "Rd.": "Road",
    "Mt.": "Mount",
    "Ft.": "Fort",
    "Inc.": "Incorporated",
    "Ltd.": "Limited",
    "Corp.": "Corporation",
    "Bros.": "Brothers",
    "Dept.": "Department",
    "dept.": "department",
    "Univ.": "University",
    "approx.": "approximately",
    "vs.": "versus",
    "vs": "versus",
    "etc.": "et cetera",
    "e.g.": "for example",
    "i.e.": "that is",
    "et al.": "and others",
    "cf.": "compare",
    "ca.": "circa",
    "est.": "established",
    "incl.": "including",
    "w/o": "without",
    "w/": "with",
    "Jan.": "January",
    "Feb.": "February",
    "Aug.": "August",
    "Sept.": "September",
    "Oct.": "October",
    "Nov.": "November",
    "Dec.": "December",
}
"""As they are written; a title without its period is read by the model's own lexicon."""
BEFORE_NUMBERS = {
    "No.": "number",
    "Nos.": "numbers",
    "no.": "number",
    "Fig.": "figure",
    "Figs.": "figures",
    "fig.": "figure",
    "Vol.": "volume",
    "vol.": "volume",
    "Ch.": "chapter",
    "ch.": "chapter",
    "Sec.": "section",
    "sec.": "section",
    "pp.": "pages",
    "p.": "page",
    "Art.": "article",
    "Eq.": "equation",
    "№": "number",
    "§": "section",
}

READ_AS_WORDS = frozenset(
    listed("""
    NASA NATO UNESCO UNICEF OPEC AIDS COVID FIFA UEFA NASDAQ ASCII ROM RAM LAN WAN PIN SIM LASER
    RADAR SONAR SCUBA ASAP IKEA FEMA OSHA HIPAA GIF OLED LIDAR CUDA JSON YAML TOML BASIC SWAT
    NIMBY DARPA NAFTA BRICS GAAP PEMDAS CAPTCHA OK TED LEGO
""")
)
"""Capitals that are said as a word. (Whether ``SQL`` is, remains the model's.)"""

SYMBOLS = {
    "&": "and",
    "+": "plus",
    "=": "equals",
    "×": "times",
    "÷": "divided by",
    "±": "plus or minus",
    "≈": "approximately",
    "≠": "is not equal to",
    "≤": "is less than or equal to",
    "≥": "is greater than or equal to",
    "<": "is less than",
    ">": "is greater than",
    "→": "to",
    "~": "about",
    "@": "at",
    "#": "hash",
    "%": "percent",
    "°": "degrees",
    "€": "euros",
    "£": "pounds",
    "$": "dollars",
    "¥": "yen",
    "©": "copyright",
    "®": "",
    "™": "",
    "|": ",",
    "\\": "backslash",
    "^": "to the power of",
    "_": " ",
    "*": "",
}
"""What is still there when all else is read."""
UNICODE_FRACTIONS = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5),
    "⅗": (3, 5), "⅘": (4, 5), "⅙": (1, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8),
}  # fmt: skip

ADDRESS_SIGNS = {
    ".": "dot",
    "/": "slash",
    "-": "dash",
    "_": "underscore",
    "?": "question mark",
    "=": "equals",
    "&": "and",
    "#": "hash",
    "@": "at",
    ":": "colon",
    "%": "percent",
    "~": "tilde",
    "+": "plus",
    ",": "comma",
}
SPOKEN_DOMAINS = frozenset(
    listed("""
    com net org info gov biz app dev shop online site co edu mil int
""")
)

NUMBERED = listed("""
    War Chapter Part Volume Act Scene Section Phase Type Class Level Book Appendix Title Article
    Bowl Apollo Rocky Stage Group Grade Table Figure Schedule Mark Division Fantasy Episode
    Quarter Region Step Unit Tier Annex
""")
"""Before a Roman numeral that is read as a cardinal."""
REGAL = listed("""
    Louis Henry Elizabeth Charles George Edward William Richard James Philip Ivan Peter
    Catherine Nicholas Alexander Frederick Francis Paul Benedict Pius Leo Gregory Clement
    Innocent Urban Napoleon Ramesses Ptolemy Gustav Christian Harald Otto Wilhelm Karl Carl Juan
    Felipe Alfonso Ferdinand Mary Margaret Robert David Constantine Michael Stephen Edmund
    Leopold Umberto Sixtus Boniface Darius Xerxes Cleopatra Mehmed Murad Selim Haakon Olav
    Maximilian Rudolf
""")
"""Before a Roman numeral that is read as an ordinal."""
