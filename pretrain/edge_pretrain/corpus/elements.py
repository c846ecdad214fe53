"""The 118 chemical elements, typed in: the real facts of the corpus.

Group `-`: lanthanides and actinides between the groups 2 and 4. Discoverer and year `-`: known since antiquity.
Masses are standard atomic weights, for elements without one the mass number of the most stable isotope known.
"""

from dataclasses import dataclass
from functools import cache

_CATEGORIES = {
    "n": "nonmetal",
    "g": "noble gas",
    "a": "alkali metal",
    "e": "alkaline earth metal",
    "o": "metalloid",
    "h": "halogen",
    "p": "post-transition metal",
    "t": "transition metal",
    "l": "lanthanide",
    "c": "actinide",
    "s": "superheavy element",
}

# symbol name mass period group category discoverer year; the line's place is the atomic number.
_TABLE = """\
H Hydrogen 1.008 1 1 n Cavendish 1766
He Helium 4.0026 1 18 g Janssen 1868
Li Lithium 6.94 2 1 a Arfwedson 1817
Be Beryllium 9.0122 2 2 e Vauquelin 1798
B Boron 10.81 2 13 o Davy 1808
C Carbon 12.011 2 14 n - -
N Nitrogen 14.007 2 15 n Rutherford 1772
O Oxygen 15.999 2 16 n Scheele 1771
F Fluorine 18.998 2 17 h Moissan 1886
Ne Neon 20.180 2 18 g Ramsay 1898
Na Sodium 22.990 3 1 a Davy 1807
Mg Magnesium 24.305 3 2 e Davy 1808
Al Aluminium 26.982 3 13 p Oersted 1825
Si Silicon 28.085 3 14 o Berzelius 1824
P Phosphorus 30.974 3 15 n Brand 1669
S Sulfur 32.06 3 16 n - -
Cl Chlorine 35.45 3 17 h Scheele 1774
Ar Argon 39.95 3 18 g Rayleigh 1894
K Potassium 39.098 4 1 a Davy 1807
Ca Calcium 40.078 4 2 e Davy 1808
Sc Scandium 44.956 4 3 t Nilson 1879
Ti Titanium 47.867 4 4 t Gregor 1791
V Vanadium 50.942 4 5 t Rio 1801
Cr Chromium 51.996 4 6 t Vauquelin 1797
Mn Manganese 54.938 4 7 t Gahn 1774
Fe Iron 55.845 4 8 t - -
Co Cobalt 58.933 4 9 t Brandt 1735
Ni Nickel 58.693 4 10 t Cronstedt 1751
Cu Copper 63.546 4 11 t - -
Zn Zinc 65.38 4 12 t Marggraf 1746
Ga Gallium 69.723 4 13 p Boisbaudran 1875
Ge Germanium 72.630 4 14 o Winkler 1886
As Arsenic 74.922 4 15 o Magnus 1250
Se Selenium 78.971 4 16 n Berzelius 1817
Br Bromine 79.904 4 17 h Balard 1826
Kr Krypton 83.798 4 18 g Ramsay 1898
Rb Rubidium 85.468 5 1 a Bunsen 1861
Sr Strontium 87.62 5 2 e Crawford 1790
Y Yttrium 88.906 5 3 t Gadolin 1794
Zr Zirconium 91.224 5 4 t Klaproth 1789
Nb Niobium 92.906 5 5 t Hatchett 1801
Mo Molybdenum 95.95 5 6 t Scheele 1778
Tc Technetium 98 5 7 t Segre 1937
Ru Ruthenium 101.07 5 8 t Claus 1844
Rh Rhodium 102.91 5 9 t Wollaston 1804
Pd Palladium 106.42 5 10 t Wollaston 1802
Ag Silver 107.87 5 11 t - -
Cd Cadmium 112.41 5 12 t Stromeyer 1817
In Indium 114.82 5 13 p Reich 1863
Sn Tin 118.71 5 14 p - -
Sb Antimony 121.76 5 15 o - -
Te Tellurium 127.60 5 16 o Reichenstein 1782
I Iodine 126.90 5 17 h Courtois 1811
Xe Xenon 131.29 5 18 g Ramsay 1898
Cs Caesium 132.91 6 1 a Bunsen 1860
Ba Barium 137.33 6 2 e Davy 1808
La Lanthanum 138.91 6 - l Mosander 1838
Ce Cerium 140.12 6 - l Berzelius 1803
Pr Praseodymium 140.91 6 - l Welsbach 1885
Nd Neodymium 144.24 6 - l Welsbach 1885
Pm Promethium 145 6 - l Marinsky 1945
Sm Samarium 150.36 6 - l Boisbaudran 1879
Eu Europium 151.96 6 - l Demarcay 1896
Gd Gadolinium 157.25 6 - l Marignac 1880
Tb Terbium 158.93 6 - l Mosander 1843
Dy Dysprosium 162.50 6 - l Boisbaudran 1886
Ho Holmium 164.93 6 - l Soret 1878
Er Erbium 167.26 6 - l Mosander 1843
Tm Thulium 168.93 6 - l Cleve 1879
Yb Ytterbium 173.05 6 - l Marignac 1878
Lu Lutetium 174.97 6 3 l Urbain 1906
Hf Hafnium 178.49 6 4 t Coster 1922
Ta Tantalum 180.95 6 5 t Ekeberg 1802
W Tungsten 183.84 6 6 t Elhuyar 1783
Re Rhenium 186.21 6 7 t Noddack 1925
Os Osmium 190.23 6 8 t Tennant 1803
Ir Iridium 192.22 6 9 t Tennant 1803
Pt Platinum 195.08 6 10 t Ulloa 1748
Au Gold 196.97 6 11 t - -
Hg Mercury 200.59 6 12 t - -
Tl Thallium 204.38 6 13 p Crookes 1861
Pb Lead 207.2 6 14 p - -
Bi Bismuth 208.98 6 15 p Geoffroy 1753
Po Polonium 209 6 16 p Curie 1898
At Astatine 210 6 17 h Corson 1940
Rn Radon 222 6 18 g Rutherford 1899
Fr Francium 223 7 1 a Perey 1939
Ra Radium 226 7 2 e Curie 1898
Ac Actinium 227 7 - c Debierne 1899
Th Thorium 232.04 7 - c Berzelius 1829
Pa Protactinium 231.04 7 - c Fajans 1913
U Uranium 238.03 7 - c Klaproth 1789
Np Neptunium 237 7 - c McMillan 1940
Pu Plutonium 244 7 - c Seaborg 1940
Am Americium 243 7 - c Seaborg 1944
Cm Curium 247 7 - c Seaborg 1944
Bk Berkelium 247 7 - c Thompson 1949
Cf Californium 251 7 - c Thompson 1950
Es Einsteinium 252 7 - c Ghiorso 1952
Fm Fermium 257 7 - c Ghiorso 1952
Md Mendelevium 258 7 - c Ghiorso 1955
No Nobelium 259 7 - c Flerov 1965
Lr Lawrencium 266 7 3 c Ghiorso 1961
Rf Rutherfordium 267 7 4 t Ghiorso 1969
Db Dubnium 268 7 5 t Ghiorso 1970
Sg Seaborgium 269 7 6 t Ghiorso 1974
Bh Bohrium 270 7 7 t Muenzenberg 1981
Hs Hassium 269 7 8 t Muenzenberg 1984
Mt Meitnerium 278 7 9 s Muenzenberg 1982
Ds Darmstadtium 281 7 10 s Hofmann 1994
Rg Roentgenium 282 7 11 s Hofmann 1994
Cn Copernicium 285 7 12 s Hofmann 1996
Nh Nihonium 286 7 13 s Morita 2004
Fl Flerovium 289 7 14 s Oganessian 1999
Mc Moscovium 290 7 15 s Oganessian 2003
Lv Livermorium 293 7 16 s Oganessian 2000
Ts Tennessine 294 7 17 s Oganessian 2009
Og Oganesson 294 7 18 s Oganessian 2002
"""


@dataclass(frozen=True)
class Element:
    """`mass` in daltons; `group` None in the f-block; `discoverer` and `year` None if known since antiquity."""

    number: int
    symbol: str
    name: str
    mass: float
    period: int
    group: int | None
    category: str
    discoverer: str | None
    year: int | None


@cache
def elements() -> tuple[Element, ...]:
    """All elements by atomic number."""
    found = []
    for number, line in enumerate(_TABLE.splitlines(), start=1):
        symbol, name, mass, period, group, category, discoverer, year = line.split()
        found.append(
            Element(
                number,
                symbol,
                name,
                float(mass),
                int(period),
                None if group == "-" else int(group),
                _CATEGORIES[category],
                None if discoverer == "-" else discoverer,
                None if year == "-" else int(year),
            )
        )
    return tuple(found)
