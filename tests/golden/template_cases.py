"""Small cases of the template language, by subject. template_oracle.py renders them with Jinja2 and
writes the results to template_cases.json, which the C test reads."""

V = {
    "name": "World",
    "n": 3,
    "f": 2.5,
    "yes": True,
    "nothing": None,
    "empty": [],
    "text": "The quick  brown\tfox\njumps",
    "uni": "Ünïcödé 🙂 ß ﬁ Σας ΟΔΟΣ",
    "items": [3, 1, 2],
    "words": ["banana", "Apple", "cherry", "apple"],
    "mixed": [1, "1", 1.0, True, None, [1], {"a": 1}],
    "d": {"b": 2, "a": 1, "C": 3, "items": "own"},
    "people": [
        {"name": "Ann", "age": 30, "city": {"name": "Rome"}, "admin": True},
        {"name": "bob", "age": 25, "city": {"name": "Oslo"}, "admin": False},
        {"name": "Cid", "age": 30, "city": {"name": "rome"}},
    ],
    "nested": {"list": [{"x": 1}, {"x": [1, 2, {"y": "z"}]}], "none": None, "t": True},
    "html": "<a href=\"x\">it's & that</a>",
    "tree": [{"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3, "kids": [{"v": 4, "kids": []}]}]}],
}

# Printed one by one: {{ … }}.
EXPRESSIONS = {
    "literals": """
1|0|42|1_000|0x1F|0o17|0b101|00|1.5|1e3|1.5e-7|2.|1E+2|.5|1_0.2_5|'a'|"b"|'a' 'b' "c"|true|True|false|none|None|[]|[1,]|[1, 'a', none]|()|(1,)|(1, 2)|(1)|{}|{'a': 1,}|{1: 2, 'b': [1, {'c': none}]}|{true: 1, none: 2, 1.5: 3}|'\\n\\t\\\\\\'\\x41\\u00e9\\U0001F642\\101\\q'|"it's"|'say "x"'|'a\\
b'|9223372036854775807|1e16|1e15|123456789012345680.0|0.1|1e-5|0.0001|-0.0|1e300|1.0|100000.0|3.14159265358979""",
    "arithmetic": """
1 + 2|1 - 2|2 * 3|7 / 2|7 // 2|-7 // 2|7 % 3|-7 % 3|7 % -3|7.5 // 2|-7.5 % 2|2 ** 10|2 ** -1|2 ** 0.5|2 ** 3 ** 2|-2 ** 2|(-2) ** 2|1 + 2 * 3|(1 + 2) * 3|1 / 3|10 / 5|1.5 + 1|0.1 + 0.2|true + 1|true * 3|+n|-n|- -n|'a' * 3|3 * 'ab'|[1] * 2|'a' * 0|'a' * -1|(1,) + (2,)|[1] + [2, 3]|'a' + 'b'|1e308 * 10|-1e308 * 10|5 // 0.3|5 % 0.3|1 // 2 * 3|2 - 1 - 1|100 / 10 / 2|'%s-%d' % ('a', 3)|'%s' % name|'%5.2f|%-5s|%05d|%x|%%' % (3.14159, 'ab', 42, 255)|'%(a)s %(b)d' % {'a': 1, 'b': 2}|'%r' % 'x'|'%+d % d' % (1, 2)|'%e %g %G' % (12345.678, 0.00001, 1e20)|'%c%c' % ('a', 98)|'%i' % 3.9|'%10s|%-10s|' % ('é', 'é')|'%.2s' % 'abc'|'%o %#x %#o' % (8, 255, 8)|'%s' % [1, 2]|'%s %s' % ('a', none)|'%*d' % (5, 1)""",
    "arithmetic errors": """
1 / 0|1 // 0|1 % 0|1.0 / 0|1 + 'a'|'a' + 1|none + 1|[] + ()|-'a'|missing + 1|1 + missing|'a' - 'b'|{} + {}|0 ** -1|'%d' % 'x'|'%s %s' % 'a'|'%s' % ('a', 'b')|'%q' % 1|'a' * 1.5|'%(a)s' % 1|missing * 2|-missing""",
    "comparison": """
1 == 1.0|1 == true|'a' == 'a'|'a' != 'b'|1 < 2|2 <= 2|3 > 2 > 1|3 > 2 > 2|1 < 3 < 2|'a' < 'b'|'B' < 'a'|'é' > 'z'|[1, 2] < [1, 3]|[1] < [1, 0]|(1, 2) == (1, 2)|[1] == (1,)|{'a': 1} == {'a': 1.0}|{'a': 1, 'b': 2} == {'b': 2, 'a': 1}|none == none|none == false|missing == missing|missing == none|1 == '1'|9007199254740993 == 9007199254740992.0|9007199254740993 > 9007199254740992.0|1 in [1, 2]|1.0 in [1]|'a' in 'cat'|'' in 'cat'|'x' not in 'cat'|'a' in d|2 in d|'x' in missing|1 in (1,)|not 1 in [1]|1 not in [1]|none in [none]|[1] in [[1]]|1 < 2 == true|'ab' in ['ab'] and 'b' in 'ab'|2 in range(3)|'a' in d.keys()|1 in d.values()|true is true == true""",
    "comparison errors": """1 < 'a'|none < 1|[] < ()|{} < {}|missing < 1|1 > missing|1 in 1|1 in 'a'|1 in none|[] in d|[1, 'a'] < [1, 2]""",
    "logic": """
1 and 2|0 and 2|1 or 2|0 or 2|'' or none|none and 1|not 1|not ''|not not 'a'|1 and '' or 'x'|missing or 'd'|missing and 1|[] or {}|0.0 or 'z'|true and false or true|not true or true|not (true or true)|'a' if yes else 'b'|'a' if nothing else 'b'|'a' if nothing|('a' if false) is defined|1 if 0 else 2 if 0 else 3|(1 if yes else 2) + 1|'x' if missing else 'y'|'a' if yes|1 or missing.x|0 and missing.x""",
    "concat": """1 ~ 2|'a' ~ none ~ true ~ 1.0|missing ~ 'x'|[1] ~ {'a': 'b'}|'a' ~ 1 + 2|'a' ~ 2 * 3|(1 ~ 2) + '3'|'x' ~ -1""",
    "str and repr": """
none|true|1.0|[1, 'a', none, true, 1.5]|(1,)|(1, 'a')|{'a': 'b', 1: [none]}|['it\\'s', "a\\"b", 'both\\'"']|['\\n\\t\\\\\\r\\x00\\x7f']|['é', '🙂', '\\u200b', '\\xa0', '\\ud7ff']|missing|[missing]|d|mixed|nested|range(3)|range(1, 10, 2)|d.items()|d.keys()|d.values()|[d.items()]|1e100|12345678901234567.0|[0.1, 1e-7]|(1.0, -2.5e-10)|people|[()]|[[[]]]""",
    "attributes": """
d.b|d['b']|d.C|d.missing|d['missing']|d.missing.x|d['items']|d.nope is defined|people[0].name|people[-1]['name']|people[0].city.name|people[9]|people[9].x|items[0]|items[-1]|items[5]|items.0|nested.list.1.x.2.y|'abc'[0]|'abc'[-1]|'abc'[9]|'abc'['x']|uni[1]|uni[8]|n.x|n['x']|nothing.x|nothing['x']|nothing[0]|missing.x|missing['x']|missing[0]|true.x|items['0']|items[1.0]|items[true]|d[[]]|d[none]|(1, 2)[1]|{'a': {'b': 1}}.a.b|[[1, 2], [3]][0][1]|range(5)[2]|range(5)[-1]|d.get('b')|d.get('x')|d.get('x', 5)|d.get|d.get is callable|name.upper is callable|name.nope is defined|nested.none.x|d.__class__|d.__class__ is defined|''.__class__.__mro__|d['__class__']|d._x|items.append is defined|d.update is defined|d.pop|{'items': 1}['items']|{'get': 1}.get is callable|d[1, 2]|{(1, 2): 'pair'}[1, 2]""",
    "attribute errors": """items.append(1)|d.update({})|d.pop('a')|d.setdefault('q', 1)|d.clear()|items.pop()|items.sort()|items.insert(0, 1)|items.remove(1)|items.reverse()|items.extend([1])|nope()|n()|name()|none()|d.nope()|name.nope()|''.__class__.mro()|d['update']({})|missing.x.y|items.clear()""",
    "slices": """
items[1:]|items[:1]|items[:]|items[::-1]|items[-2:]|items[::2]|items[5:]|items[2:0:-1]|items[-9:9]|'hello'[1:3]|'hello'[::-1]|'hello'[::2]|'hello'[-3:-1]|'hello'[3:1]|'hello'[10:]|'hello'[:-1]|uni[:7]|uni[::-1]|uni[2:9:3]|uni[-1:]|(1, 2, 3)[1:]|range(10)[2:8:3]|range(10)[::-1]|range(10)[::-4]|range(7)[9:]|range(0)[::-1]|range(-9000000000000000000, 8000000000000000000, 4000000000000000000)|list|range(-9000000000000000000, 8000000000000000000, 4000000000000000000)[4]|range(-9000000000000000000, 7000000000000000000, 4000000000000000000)[1::1]|'hello'[none:2]|items[n:]|''[::-1]|'hello'[4:0:-2]|'hello'[::-2]|items[true:]|'a🙂b'[1]|'a🙂b'[1:2]""",
    "slice errors": """items[::0]|items['a':]|d[1:]|nothing[1:]|missing[1:]|n[1:]|items[1.5:]""",
    "calls": """
range(3)|range(3)|list|range(1, 4)|list|range(5, 0, -2)|list|range(0)|list|dict(a=1, b='x')|dict({'a': 1}, b=2)|dict([('a', 1), ['b', 2]])|dict()|namespace(a=1).a|namespace({'x': 2}).x|namespace(a=1).b|namespace(a=1)['a']|name.replace('o', '0')|'a,b'.split(',')|'{}'.format(1)|name.upper()|(name.upper)()|dict(**{'a': 1})|range(*[1, 3])|list|namespace(a=1)|'x'.join(['a', 'b'],)|d.items()|list|d.keys()|list|d.values()|list|d.items()|length|items.index(1)|items.count(3)|(1, 2, 1).count(1)|items.copy()|d.copy()""",
    "call errors": """range()|range('a')|range(1, 2, 0)|range(100001)|range(1000000000)|dict(1)|dict([1])|raise_exception('stop here')|raise_exception()|name.replace('a')|name.upper(1)|name.upper(x=1)|items.index(9)|'a'.join([1])|dict([[1, 2, 3]])|namespace(_x=1)|range(1, 2, 3, 4)|'x'.nosuch()|dict(a=1, a=2)|range(*1)|dict(**1)|name.split('')""",
    "tests": """
n is defined|missing is defined|missing is undefined|d.x is undefined|n is number|f is number|true is number|'1' is number|n is integer|f is integer|true is integer|f is float|n is float|yes is boolean|n is boolean|yes is true|1 is true|false is false|0 is false|nothing is none|n is none|missing is none|name is string|n is string|d is mapping|items is mapping|namespace() is mapping|items is iterable|name is iterable|n is iterable|nothing is iterable|missing is iterable|d is iterable|items is sequence|name is sequence|d is sequence|n is sequence|missing is sequence|range(2) is sequence|(1,) is sequence|range is callable|name is callable|missing is callable|3 is odd|3 is even|4 is even|-1 is odd|4 is divisibleby 2|4 is divisibleby(3)|1 is eq 1|1 is equalto(2)|1 is ne 2|1 is lt 2|1 is le 1|2 is gt 1|2 is ge 3|2 is greaterthan 1|1 is lessthan 2|1 is in [1, 2]|'a' is in 'cat'|none is sameas none|true is sameas true|1 is sameas true|'abc' is lower|'ABC' is upper|'aBc' is lower|'' is lower|'123' is upper|'ÀÉ' is upper|1 is not defined|missing is not defined|not missing is defined|1 is not none|n is number and name is string|n is defined and n > 2|'x' is filter|'upper' is filter|'odd' is test|html|safe is escaped|html is escaped|d.items is callable|items|map('upper') is iterable|items|map('upper') is sequence|2.0 is even|3.5 is odd|[] is sequence|1 is eq(1) and 2 is eq 2|n is eq n|n is odd == true""",
    "test errors": """'a' is odd|none is even|1 is divisibleby 0|1 is lt 'a'|1 is in 1|missing is odd|1 is divisibleby|[] is divisibleby 2""",
    "default": """missing|default|missing|default('x')|missing|d('x')|nothing|default('x')|nothing|default('x', true)|''|default('x')|''|default('x', true)|0|d(5, boolean=true)|name|default('x')|d.nope|default(d.b)|missing|default(none)|missing|default([])|missing|default(default_value='q')""",
    "case and text": """
name|upper|name|lower|'hello world'|title|"it's o'neil-smith (x) [y] <z>"|title|'HELLO wORLD'|capitalize|''|capitalize|uni|upper|uni|lower|uni|title|uni|capitalize|none|upper|1.5|upper|missing|upper|[1]|lower|'  x '|trim|'xxaxx'|trim('x')|'\\n\\t a\\u3000'|trim|none|trim|missing|trim|'abcba'|trim('ab')|n|string|nothing|string|items|string|missing|string|text|wordcount|'a-b c_d é1'|wordcount|''|wordcount|'abc'|center(9)|'abc'|center(8)|'ab'|center(5)|'ab'|center(1)|html|striptags|'<p>a  b</p>\\n<!-- <x> --> c &amp; d'|striptags|'1 < 2'|striptags|'ǆ'|capitalize|'ǆabc ŉ'|title|'İI'|lower|'ΑΣ ΑΣΑ Σ'|lower""",
    "replace": """name|replace('o', '0')|'aaa'|replace('a', 'b', 2)|'aaa'|replace('', '-')|'abc'|replace('', '-', 2)|'aaa'|replace('aa', 'b')|123|replace(2, 'x')|'é'|replace('', '.')|'aaa'|replace('a', 'b', count=1)|'abc'|replace('b', none)|missing|replace('a', 'b')|''|replace('', 'x')|'a\\nb'|replace('\\n', '\\\\n')|'aaa'|replace('a', 'b', 0)""",
    "escape": """html|e|html|escape|html|safe|(html|safe) ~ '<'|(html|safe) + '<'|'<' + (html|safe)|html|e|e|html|e|upper|html|forceescape|html|safe|length|(html|e)[0:4] + '<'|[html|safe]|1|e|none|e|(html|e) ~ html|((html|e) ~ '<') + '<'|html|safe|string|html|safe|replace('a', '<') + '<'|'%s' % (html|safe)""",
    "join": """words|join|words|join(', ')|items|join('-')|mixed|join('|')|'abc'|join('.')|d|join(',')|people|join(', ', attribute='name')|people|join(', ', 'city.name')|missing|join(',')|[]|join(',')|[none, true, 1.0]|join(' ')|[1, 2]|join(0)|range(3)|join|d.values()|join(',')|people|map(attribute='name')|join('/')|[missing, 1]|join('-')|uni|join('|')|(1, 2)|join(d='+')""",
    "first last length": """items|first|items|last|[]|first|[]|last|''|first|'abc'|first|'abc'|last|uni|first|uni|last|d|first|d|last|range(3)|first|range(3)|last|missing|first|missing|last|items|length|items|count|name|length|uni|length|d|length|missing|length|''|length|range(7)|length|d.items()|length|people|map(attribute='name')|first|nested|length|(1, 2)|last|d.items()|first|d.values()|last""",
    "length errors": """n|length|none|length|items|map('string')|length|namespace()|length|f|count|none|first|1|last|items|map('string')|last""",
    "lists": """
'abc'|list|d|list|missing|list|(1, 2)|list|range(3)|list|d.items()|list|d|items|list|missing|items|list|items|reverse|list|'abc'|reverse|uni|reverse|(1, 2)|reverse|list|d|reverse|list|range(3)|reverse|list|items|map('string')|list|items|map('string')|reverse|list|items|batch(2)|list|items|batch(2, 'x')|list|items|batch(5)|list|[]|batch(2)|list|items|slice(2)|list|items|slice(2, 'x')|list|items|slice(5)|list|range(7)|slice(3)|list|range(7)|batch(3, 0)|list|items|sum|[]|sum|items|sum(start=10)|[1.5, 2]|sum|people|sum(attribute='age')|people|sum('age', 5)|[[1], [2]]|sum(start=[])|items|min|items|max|words|min|words|max|words|min(case_sensitive=true)|[]|min|people|max(attribute='age')|people|min(attribute='name')|d|min|'hello'|max|items|unique|list|words|unique|list|words|unique(case_sensitive=true)|list|people|unique(attribute='age')|map(attribute='name')|list|[1, 1.0, true, '1']|unique|list|'hello'|unique|join|items|abs if false else 1|-3|abs|-2.5|abs|true|abs|items|batch(-3, 'x')|list|items|batch(-3)|list""",
    "list errors": """n|list|none|list|n|items|items|items|n|join(',')|none|reverse|items|batch|items|slice|items|slice(0)|['a']|sum|[1, 'a']|min|[[]]|unique|list|'a'|abs|none|sum|items|sum('x')|[1, none]|max""",
    "sort": """items|sort|items|sort(reverse=true)|words|sort|words|sort(case_sensitive=true)|words|sort(true)|people|sort(attribute='age')|map(attribute='name')|list|people|sort(attribute='age,name')|map(attribute='name')|list|people|sort(attribute='city.name', reverse=true)|map(attribute='name')|list|'hello'|sort|join|d|sort|missing|sort|[(2, 'a'), (1, 'b')]|sort|[[2, 0], [1]]|sort|[1.5, 1, true]|sort|d|dictsort|d|dictsort(true)|d|dictsort(by='value')|d|dictsort(reverse=true)|d|dictsort(false, 'value', true)|{'b': 1, 'B': 0, 'a': 2}|dictsort|{}|dictsort|people|sort(attribute='age', reverse=true)|map(attribute='name')|list|[3, 1, 2]|sort|first|people|sort(attribute=0)|length|{'a': 'x'}|dictsort(by='key')""",
    "sort errors": """[1, 'a']|sort|[none, 1]|sort|n|sort|items|dictsort|missing|dictsort|d|dictsort(by='x')|[{}, {}]|sort|{'a': 1, 1: 2}|dictsort|people|sort(attribute='admin')""",
    "map and select": """
items|map('string')|list|words|map('upper')|list|words|map('replace', 'a', 'A')|list|people|map(attribute='name')|list|people|map(attribute='city.name')|list|people|map(attribute='zip')|list|people|map(attribute='zip', default='-')|list|people|map(attribute='admin', default='?')|join(',')|[[1, 2], [3]]|map('first')|list|[[1, 2], [3]]|map('sum')|list|items|select('odd')|list|items|reject('odd')|list|items|select('gt', 1)|list|mixed|select|list|mixed|reject|list|mixed|select('string')|list|items|select('in', [1, 2])|list|people|selectattr('admin')|map(attribute='name')|list|people|rejectattr('admin')|map(attribute='name')|list|people|selectattr('age', 'eq', 30)|map(attribute='name')|list|people|selectattr('admin', 'defined')|list|length|people|selectattr('admin', 'undefined')|list|length|people|rejectattr('name', 'equalto', 'Ann')|list|length|people|selectattr('city.name', '==', 'Rome')|list|length|missing|map('upper')|list|missing|select|list|missing|selectattr('x')|list|[]|map('nosuch')|list|'yes' if (people|selectattr('name', 'eq', 'nobody')) else 'no'|'yes' if (people|selectattr('name', 'eq', 'nobody')|list) else 'no'|items|map('default', 1)|list|[1, 2]|map(attribute=0)|list|[[5, 6]]|map(attribute=1)|list|[[5, 6]]|map(attribute='1')|list|words|select('lower')|list|items|select('divisibleby', 3)|list|none|map('upper')|list|words|map('length')|sum|words|map('upper')|map('lower')|list|[' a ', 'b ']|map('trim')|list|people|map('tojson')|first|items|map('float')|join(' ')|'abc'|map('upper')|join|d|map('upper')|list|people|groupby('age')|map('first')|list|['a']|map('indent', 2)|list""",
    "map errors": """items|map('nosuch')|list|items|select('nosuch')|list|items|map|list|people|selectattr|list|n|map('upper')|list|items|map(foo='x')|list|people|map(attribute='x.y')|list|items|map('upper', 1)|list|[1]|selectattr('x', 'nosuch')|list""",
    "groupby": """people|groupby('age')|length|people|groupby('age')|map(attribute='grouper')|list|people|groupby('city.name')|map('first')|list|people|groupby('city.name', case_sensitive=true)|map('first')|list|people|groupby('zip', default='none')|map('first')|list|(people|groupby('age')|first).grouper|(people|groupby('age')|first).list|length|(people|groupby('age'))[1][0]|[]|groupby('x')""",
    "int and float": """'42'|int|'x'|int|'x'|int(5)|'42.9'|int|'-3'|int|' 7 '|int|'0x1f'|int(base=16)|'ff'|int(0, 16)|'1_000'|int|3.9|int|-3.9|int|true|int|none|int|none|int(-1)|[]|int|''|int|'1e3'|int|'0b11'|int(base=2)|'077'|int|'inf'|int|'3.5'|float|'x'|float|'x'|float(1.5)|3|float|true|float|none|float|'1e5'|float|' 2 '|float|'nan'|float|'inf'|float|'-inf'|float|'1_0'|float|''|float|[]|float|'z'|int('d')""",
    "int errors": """missing|int|missing|float|items|int(base='x')|'inf'|float|int""",
    "round": """2.5|round|3.5|round|-2.5|round|2.567|round(2)|2.675|round(2)|2.5|round(method='ceil')|2.5|round(method='floor')|2.123|round(2, 'ceil')|42|round|42|round(1)|1234|round(-2)|1250|round(-2)|1234.5|round(-2)|-2.1|round(0, 'ceil')|1e20|round|0.5|round|1.5|round|0.1|round(20)|7|round(0, 'floor')|true|round|2.5|round|int|3.14159|round(3)|15|round(-1)|25|round(-1)|-15|round(-1)|-25|round(-1)|1234567890123456789|round(-1)|9223372036854775804|round(-1)|-9223372036854775804|round(-1)|5|round(-1)|6|round(-1)|5000000000000000000|round(-19)|-4|round(-25)|1500000000000000000|round(-18)|2500000000000000000|round(-18)|1.5e40|round(-35)|1.5e300|round(-299)|1e22|round(-22)|7.5e22|round(-22)|1e-300|round(-9223372036854775807)|-1e-300|round(-9223372036854775807)""",
    "round errors": """'a'|round|none|round|2.5|round(method='x')|missing|round|2.5|round('a')""",
    "format": """'%s=%s'|format('a', 1)|'%(a)s'|format(a=1)|'%05.1f'|format(3.14159)|'%d%%'|format(50)|'{}-{}'.format(1, 'a')|'{0}{1}{0}'.format('a', 'b')|'{x}:{y}'.format(x=1, y=[1])|'{{}}'.format()|'{:>5}|{:<5}|{:^5}|'.format('a', 'b', 'c')|'{:*^7}'.format('x')|'{:05d}'.format(42)|'{:+d}'.format(5)|'{:,}'.format(1234567)|'{:_}'.format(1234567)|'{:.2f}'.format(3.14159)|'{:,.2f}'.format(12345.678)|'{:e}'.format(12345.678)|'{:x} {:X} {:b} {:o} {:#x}'.format(255, 255, 5, 8, 255)|'{:%}'.format(0.25)|'{:.1%}'.format(0.256)|'{!r}'.format('a')|'{!s:>4}'.format('a')|'{0.name}'.format(people[0])|'{0[name]}'.format(people[0])|'{p[city][name]}'.format(p=people[0])|'{0[1]}'.format([1, 2])|'{:{w}}|'.format('a', w=5)|'{:>{}}'.format('a', 4)|'{}'.format(none)|'{}'.format(1.0)|'{:5}|'.format(1)|'{:5}|'.format('a')|'{:.3}'.format('abcdef')|'{:g}'.format(1e10)|'{:.3}'.format(3.14159)|'{:10.3}|'.format(2.0)|'{:d}'.format(true)|'{}'.format(true)|'{:=+5d}'.format(3)|'{:é>4}'.format('x')|'{:<05d}'.format(3)|'{:05}'.format('ab')|'{:08.2f}'.format(-3.14159)|'{:,}'.format(1234.5)|'{:n}'.format(5)|'{: d}'.format(3)|'{:.0f}'.format(2.5)""",
    "format errors": """'{}'.format()|'{'.format()|'}'.format()|'{x}'.format()|'{0}{}'.format(1, 2)|'{:d}'.format('a')|'{:d}'.format(1.5)|'{:>5}'.format([1])|'{:z9}'.format('a')|'{0.nope.x}'.format(1)|'{0.__class__}'.format('a').x.y|'%s'|format('a', x=1)""",
    "indent": """'a\\nb'|indent|'a\\n\\nb'|indent(2)|'a\\nb'|indent(2, true)|'a\\n\\nb'|indent(2, blank=true)|'a\\nb'|indent('> ')|'a'|indent|''|indent|'a\\nb\\n'|indent(1)|'a\\r\\nb'|indent(1)|'a\\nb'|indent(width=3, first=true)|'\\n'|indent(2, true, true)|'a\\nb'|indent(0)""",
    "truncate": """'foo bar baz qux'|truncate(9)|'foo bar baz qux'|truncate(9, true)|'foo bar baz qux'|truncate(11)|'foo bar baz qux'|truncate(11, false, '…')|'foo bar baz qux'|truncate(11, leeway=0)|'foo bar'|truncate(3, true, '', 0)|'foobarbazqux'|truncate(6, leeway=0)|uni|truncate(6, true, '.', 0)|missing|truncate|'foo bar baz qux'|truncate(10)|'foo bar baz qux'|truncate(3)|'foo bar baz qux'|truncate(3, true)""",
    "indent and truncate errors": """1|indent|none|indent|missing|indent|1|truncate|'foo'|truncate(1)|'a'|indent('b', 'c', 'd', 'e')""",
    "tojson": """
none|tojson|true|tojson|1|tojson|1.0|tojson|1e100|tojson|'a"b\\\\c\\n\\t\\x01\\x7f/é🙂<&>\\''|tojson|[]|tojson|{}|tojson|[1, 'a', none]|tojson|(1, 2)|tojson|d|tojson|nested|tojson|people|tojson(indent=2)|d|tojson(indent=4)|[]|tojson(indent=2)|{'a': []}|tojson(indent=2)|d|tojson(sort_keys=true)|nested|tojson(indent=1, sort_keys=true)|d|tojson(separators=(',', ':'))|d|tojson(indent=2, separators=(', ', ' = '))|'é🙂'|tojson(ensure_ascii=true)|'é'|tojson(true)|{1: 2, none: 3, true: 4, 1.5: 5}|tojson|[1.5, -0.0, 1e-7]|tojson|d|tojson(indent='--')|d|tojson(indent=0)|'inf'|float|tojson|'nan'|float|tojson|[[], {}]|tojson(indent=2)|(1, [2])|tojson(indent=1)|html|tojson|html|safe|tojson|'\\u2028'|tojson|d|tojson(indent=none)|namespace(a=d).a|tojson|uni|tojson""",
    "tojson errors": """missing|tojson|[missing]|tojson|range(3)|tojson|d.items()|tojson|items|map('string')|tojson|namespace(a=1)|tojson|{(1, 2): 3}|tojson|range|tojson|d|tojson(separators=',')|{1: 1, 'a': 2}|tojson(sort_keys=true)""",
    "urlencode": """'a b&c/é'|urlencode|{'a': 'x y', 'b': 1}|urlencode|[('k', 'v/w'), ('q', '~')]|urlencode|1|urlencode""",
    "str methods": """
'  a b '.strip()|'  a '.lstrip()|' a  '.rstrip()|'xxaxx'.strip('x')|'abcab'.strip('ba')|'abc'.lstrip('a')|'abc\\n'.rstrip('\\n')|'éaé'.strip('é')|'a b  c'.split()|' a b '.split(' ')|'a,b,c'.split(',')|'a,b,c'.split(',', 1)|'a,b,c'.rsplit(',', 1)|'a b c'.split(none, 1)|' a  b c '.rsplit(none, 1)|''.split()|''.split(',')|'a--b'.split('--')|'a,b'.split(sep=',')|'a,b,c'.split(',', maxsplit=1)|'abc'.split('')  if false else 1|'a b c d'.rsplit()|'aXbXc'.rsplit('X', -1)|'a\\nb\\r\\nc\\rd'.splitlines()|'a\\nb\\n'.splitlines()|'a\\nb'.splitlines(true)|''.splitlines()|'a\\x0bb\\x1cc\\u2028d'.splitlines()|'hello'.startswith('he')|'hello'.startswith(('x', 'h'))|'hello'.endswith('lo')|'hello'.endswith(('x', 'lo'))|'hello'.startswith('l', 2)|'hello'.endswith('l', 0, 4)|'hello'.startswith('')|'hello'.startswith('', 9)|'hello'.find('l')|'hello'.find('x')|'hello'.find('l', 3)|'hello'.rfind('l')|'héllo'.find('l')|'hello'.index('e')|'hello'.rindex('l')|'hello'.count('l')|'aaa'.count('aa')|'abc'.count('')|'hello'.find('')|'hello'.find('', 9)|'hello'.find('o', -2)|'hello'.rfind('')|'hello'.replace('l', 'L', 1)|'hello'.replace('l', '')|'hello world'.title()|"they're bill's".title()|'hELLO'.capitalize()|'Hello'.swapcase()|'HELLO'.lower()|'ß'.upper()|'ŉx'.upper()|'ab'.join('xyz')|', '.join(['a', 'b'])|'-'.join(d)|''.join([])|'abc'.removeprefix('a')|'abc'.removeprefix('x')|'abc'.removesuffix('c')|'abc'.removesuffix('')|'123'.isdigit()|'12a'.isdigit()|''.isdigit()|'²'.isdigit()|'²'.isdecimal()|'½'.isnumeric()|'abc'.isalpha()|'ab1'.isalpha()|'é'.isalpha()|'ab1'.isalnum()|'a_'.isalnum()|' \\t'.isspace()|''.isspace()|'ABC'.isupper()|'aBC'.isupper()|'abc1'.islower()|'Hello World'.istitle()|'Hello world'.istitle()|'abc'.isascii()|'é'.isascii()|'a'.ljust(3) ~ '|'|'a'.rjust(3, '.')|'a'.center(4, '*')|'ab'.center(5)|'42'.zfill(5)|'-42'.zfill(5)|'a=b=c'.partition('=')|'a=b=c'.rpartition('=')|'abc'.partition('x')|'abc'.rpartition('x')|'aXb'.casefold()|'Straße ŒŉΣΑΣ'.casefold()|'a\\tbc\\t\\tdéf\\n\\tx\\r\\ty'.expandtabs()|'a\\tb\\té\\t'.expandtabs(tabsize=4)|'a\\tb'.expandtabs(0)|'a\\tb'.expandtabs(-1)|'a é🙂'.isprintable()|'a\\n'.isprintable()|'\\u00a0'.isprintable()|''.isprintable()|uni.upper()|uni.lower()|uni.title()|uni.capitalize()|uni.find('🙂')|uni.split(' ')|'\\u3000a\\u00a0'.strip()|'a\\u3000b'.split()|'x'.join(words|map('upper'))""",
    "str method errors": """'a'.strip(1)|'a'.split(1)|'a'.split('')|'a'.replace('b')|'a'.startswith(1)|'a'.startswith(['a'])|'a'.index('b')|'a'.join(1)|'a'.join([1])|'a'.find(1)|'a'.ljust('x')|'a'.center(5, 'xx')|'a'.join([none])|'a'.encode().x.y|'a'.startswith()""",
    "overflow and budget": """range(10 ** 9)|'a' * 10 ** 12|[0] * 10 ** 12""",
    "unknown": """1|nosuch|1 is nosuch|(1|nosuch) if false else 2|(1|nosuch) if true else 2|2 if true else (1|nosuch)|2 if true else (1 is nosuch)""",
}

# Whole templates.
TEMPLATES = {
    "text": ["", "plain", "a\n", "a\n\n", "\n", "é🙂", "{ {", "{%raw%}{{ x }}{%endraw%}", "a}}b%}c#}", "{{ 'a' }}}", "a\r\nb\rc\n", "{{ '}}' }}", "{{ '%}' }}{% set x = '{{' %}{{ x }}",
             "{", "{{'{'}}", "}}", "a {# c #} b", "a {# c\nd #}\nb", "{##}x", "{# {{ x }} {% if %} #}x", "{#-#}x", "a{#- c -#} \n b", "  {# c #}\nx", "  {#+ c #}\nx", "{# c +#}\nx"],
    "space control": [
        "a\n  {% if true %}\n  b\n  {% endif %}\nc", "a {%- if true -%} b {%- endif -%} c", "a\n\n{%- if true %}\n\nb{% endif -%}\n\n c",
        "  {%+ if true %}x{% endif +%}\ny", "{% if true +%}\nx{% endif %}\n\ny", "a {{- 1 -}} b", "a\n {{- 1 -}} \n b", "a {{ 1 }}\nb", "  {{ 1 }}\n  {{ 2 }}\n",
        "x {% set a = 1 %} y", "x\n\t {% set a = 1 %}\ny", "{% set a = 1 %}\n\nx", "{% set a = 1 -%}\n\n\n x", "x \n {%- set a = 1 %}\n y", "{%- set a = 1 -%}\n", "\n\n{%- set a = 1 %}x",
        "{% raw %}\n a {% endraw %}\nb", "{%- raw -%} \n a \n {%- endraw -%} \n b", "x\n  {% raw %}a\n  {% endraw %}\ny", "{% raw %}{% x %}{{ y }}{# z #}{% endraw %}", "{%raw-%} {%endraw-%} x",
        "a\n  {#- c -#}\n  b", "{{ 1 -}}\n\n\n{{- 2 }}", "{{- ' a ' -}}", "a\u3000{%- if true -%}\u3000b{% endif %}", "  {% if true %}  {% if true %}  x{% endif %}{% endif %}",
        "{% for i in [1,2] %}\n  {{ i }}\n{% endfor %}\nend", "{% for i in [1,2] -%}\n  {{ i }}\n{%- endfor %}\nend", "a\r\n  {% if true %}\r\nb{% endif %}", "{% if true %}\n\nx{% endif %}", "{{ 1 }}{% if true %}\n{% endif %}\n",
        "{%-if true-%}a{%-endif-%}", "{{-1}}", "{{+1}}", "{{ -1 }}", "a{{-1}}b", "x {{+ 1 }}",
    ],
    "if": [
        "{% if n %}a{% endif %}", "{% if nothing %}a{% else %}b{% endif %}", "{% if 0 %}a{% elif 1 %}b{% else %}c{% endif %}", "{% if 0 %}a{% elif 0 %}b{% elif '' %}c{% else %}d{% endif %}",
        "{% if n > 2 and name %}ok{% endif %}", "{% if not missing %}x{% endif %}", "{% if missing.x %}{% endif %}", "{% if [] %}a{% elif {} %}b{% else %}c{% endif %}", "{% if true %}{% set q = 1 %}{% endif %}{{ q }}",
        "{% if false %}{% set q = 1 %}{% endif %}{{ q }}", "{% if false %}{% set n = 1 %}{% endif %}{{ n }}", "{% if 1 %}{% if 0 %}a{% else %}b{% endif %}{% endif %}", "{% if n is defined %}{{ n }}{% endif %}",
        "{% if 1, %}t{% endif %}", "{% if false %}{{ 1|nosuch }}{% endif %}ok", "{% if true %}{{ 1|nosuch }}{% endif %}", "{% if false %}{% for x in [1] %}{{ 1|nosuch }}{% endfor %}{% endif %}", "{% for x in [] %}{{ x|nosuch }}{% endfor %}",
        "{% macro m() %}{{ 1|nosuch }}{% endmacro %}", "{% if false %}{% if 1 is nosuch %}{% endif %}{% endif %}ok", "{% if true %}:{% endif %}", "{% if true: %}x{% endif %}", "{% if items|select('eq', 9) %}generator{% endif %}",
    ],
    "for": [
        "{% for x in items %}{{ x }},{% endfor %}", "{% for x in [] %}{{ x }}{% else %}none{% endfor %}", "{% for x in items %}{{ x }}{% else %}none{% endfor %}", "{% for x in missing %}{{ x }}{% else %}none{% endfor %}",
        "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for c in uni %}{{ c }}.{% endfor %}", "{% for x in range(3) %}{{ x }}{% endfor %}", "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
        "{% for x in items if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}", "{% for x in items if x > 9 %}a{% else %}none{% endfor %}", "{% for x in items %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
        "{% for x in items %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}", "{% for x in items %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}", "{% for x in [1, 1, 2] %}{% if loop.changed(x, 1) %}{{ x }}{% endif %}{% endfor %}",
        "{% for x in items %}{% if loop.index == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in items %}{% if loop.index == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in items %}{% break %}{% else %}e{% endfor %}", "{% for x in [1, 2] %}{% for y in [3, 4] %}{% if y == 4 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}",
        "{% set t = 0 %}{% for x in items %}{% set t = t + x %}{{ t }}{% endfor %}={{ t }}", "{% for x in items %}{% set y = x %}{% endfor %}{{ y }}", "{% for x in items %}{{ y }}{% set y = x %}{{ y }} {% endfor %}", "{% for x in items %}{% endfor %}{{ x }}", "{% set x = 9 %}{% for x in items %}{{ x }}{% endfor %}{{ x }}",
        "{% for x in items %}{% for y in items %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}", "{% for x in items %}{% set outer = loop %}{% for y in [1] %}{{ outer.index }}{% endfor %}{% endfor %}", "{% for x in nothing %}{% endfor %}", "{% for x in n %}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{% for a, b in ['xy'] %}{{ a }}{{ b }}{% endfor %}",
        "{% for x in tree recursive %}{{ x.v }}[{{ loop.depth }}{{ loop(x.kids) }}]{% endfor %}", "{% for x in [1] %}{{ loop(x) }}{% endfor %}", "{% for x in items %}{{ loop.nope }}{% endfor %}", "{{ loop }}", "{% for x in items recursive %}{{ x }}{% endfor %}", "{% for x in d|dictsort %}{{ x }}{% endfor %}", "{% for x in [1, 2, 3, 4]|batch(2) %}{{ x }}{% endfor %}",
        "{% for x in 'a', 'b' %}{{ x }}{% endfor %}", "{% for x in items|sort %}{{ x }}{% endfor %}", "{% for x in items[::-1] %}{{ x }}{% endfor %}", "{% for x in items if loop.index %}{% endfor %}", "{% for x in people|map(attribute='name') %}{{ x }}{{ loop.last }}{{ loop.length }}{% endfor %}", "{% for loop in items %}{{ loop }}{% endfor %}", "{% for x in items %}{{ loop.index is odd }}{% endfor %}",
        "{% for x in [] %}{% else %}{% set q = 1 %}{{ q }}{% endfor %}{{ q }}", "{% break %}", "{% for x in items %}{% if x == 1 %}{% set found = true %}{% endif %}{% endfor %}{{ found is defined }}", "{% for x in (1, 2) if x is odd recursive %}{{ x }}{% endfor %}", "{% for x in items %}{{ x }}{{ ', ' if not loop.last }}{% endfor %}", "{% for x in items %}{{ x }}{{ ', ' if not loop.last else '' }}{% endfor %}", "{% for k, v in d %}{% endfor %}",
        "{% set g = items|map('string') %}{% for x in g %}{{ x }}{% endfor %}{% for x in g %}again{% endfor %}", "{% set g = items|select %}{{ g|first }}{{ g|list }}", "{% for group in people|groupby('age') %}{{ group.grouper }}:{% for p in group.list %}{{ p.name }} {% endfor %}{% endfor %}", "{% for age, group in people|groupby('age') %}{{ age }}:{{ group|map(attribute='name')|join }} {% endfor %}", "{% for x in loop %}{% endfor %}",
    ],
    "set": [
        "{% set x = 1 %}{{ x }}", "{% set x, y = 1, 2 %}{{ x }}{{ y }}", "{% set x = 1, 2 %}{{ x }}", "{% set (x, y) = [1, 2] %}{{ x }}{{ y }}", "{% set x, y = 1 %}", "{% set x, y = [1] %}", "{% set x %}a{{ n }}b{% endset %}{{ x }}", "{% set x | upper %}a{% endset %}{{ x }}", "{% set x | replace('a', 'b') | upper %}aa{% endset %}{{ x }}", "{% set x %}{% set y = 1 %}{% endset %}{{ y }}",
        "{% set ns = namespace(a=1) %}{% for x in items %}{% set ns.a = ns.a + x %}{% endfor %}{{ ns.a }}", "{% set ns = namespace() %}{% set ns.x = 1 %}{{ ns.x }}{{ ns.y }}", "{% set ns.x = 1 %}", "{% set d.x = 1 %}", "{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a }}{{ ns.b }}", "{% set ns = namespace() %}{% set ns.t %}blk{% endset %}{{ ns.t }}", "{% set ns = namespace(l=[]) %}{% set ns.l = ns.l + [1] %}{{ ns.l }}",
        "{% set x = x %}{{ x }}", "{% set n = n + 1 %}{{ n }}", "{% set x = 1 %}{% set x = x + 1 %}{{ x }}", "{% set 1 = 2 %}", "{% set x.y.z = 1 %}", "{% set x[0] = 1 %}", "{% set true = 1 %}", "{% set x = %}", "{% set ns = namespace() %}{% set ns._x = 1 %}", "{% set x = 'a' if yes else 'b' %}{{ x }}", "{% set a = 1 %}{% set b = a %}{% set a = 2 %}{{ b }}", "{% set s = '' %}{% for c in 'abc' %}{% set s = s + c %}{% endfor %}[{{ s }}]",
        "{% set ns = namespace(s='') %}{% for c in 'abc' %}{% set ns.s = c + ns.s + c %}{% endfor %}{{ ns.s }}", "{% set a = 'x' %}{% set b = a + 'y' %}{% set c = a + 'z' %}{{ a }}{{ b }}{{ c }}{{ b + '1' }}{{ b + '2' }}{{ b }}", "{% set x = namespace(a=1) %}{{ x.a is defined }}{{ x.b is defined }}{{ x }}",
    ],
    "macro": [
        "{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a=5) }}{{ m() }}", "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}{{ m() }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=1) }}", "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}", "{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}{{ m(none) }}",
        "{% macro m() %}{{ n }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ z }}{% endmacro %}{% set z = 5 %}{{ m() }}", "{% macro m() %}{% set z = 1 %}{% endmacro %}{{ m() }}{{ z }}", "{% for i in [1] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}", "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "{% macro a() %}A{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}",
        "{% macro m() %}x{% endmacro %}{{ m()|upper }}{{ m() ~ 'y' }}{{ m().upper() }}{{ m() == 'x' }}{{ m() is string }}", "{% macro m() %}  x\n{% endmacro %}[{{ m() }}]", "{{ m() }}{% macro m() %}x{% endmacro %}", "{% macro m() %}{% endmacro %}{{ m }}{{ m.name }}{{ m.arguments }}", "{% macro m(a, b) %}{% endmacro %}{{ m.arguments }}{{ m.catch_kwargs }}{{ m.catch_varargs }}{{ m.caller }}", "{% macro m(x) %}{{ caller(x) }}{% endmacro %}{% call(y) m(5) %}[{{ y }}]{% endcall %}",
        "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}body {{ n }}{% endcall %}", "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}", "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{% macro m(caller) %}{{ caller }}{% endmacro %}{{ m(1) }}", "{% macro m(a, b=1, c) %}{% endmacro %}", "{% macro m(a, a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m() %}{{ 'a' }}{% endmacro %}{% set x = m %}{{ x() }}",
        "{% macro m(l=[1, 2]) %}{{ l }}{% endmacro %}{{ m() }}", "{% macro m(a, b='x') %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3}) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}", "{% macro outer() %}{% macro inner() %}I{% endmacro %}{{ inner() }}{% endmacro %}{{ outer() }}{{ inner is defined }}", "{% set ns = namespace() %}{% for i in [1, 2] %}{% macro m() %}m{% endmacro %}{% set ns.m = m %}{% endfor %}{{ ns.m() }}",
        "{% macro m(x) %}{% for i in range(x) %}{{ i }}{% endfor %}{% endmacro %}{{ m(3) }}{% call(a, b='d') caller_of() %}{% endcall %}", "{% macro m(a) %}{{ caller(a, 'k') }}{% endmacro %}{% call(x, y, z='d') m('v') %}{{ x }}{{ y }}{{ z }}{% endcall %}", "{% set x = 1 %}{% macro m() %}{% set x = 2 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}", "{% macro m() %}{% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}{% endmacro %}{{ m() }}", "{% macro m(x) %}{{ x.y.z }}{% endmacro %}{{ m({}) }}",
        "{% macro m(a, b) -%} {{ a }} {%- endmacro %}[{{ m(1) }}]", "{% call name() %}{% endcall %}", "{% call 1 %}{% endcall %}",
    ],
    "blocks": [
        "{% with a = 1 %}{{ a }}{% endwith %}{{ a }}", "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}", "{% with a = n, b = a %}{{ b }}{% endwith %}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}", "{% with n = n + 1 %}{{ n }}{% endwith %}{{ n }}", "{% for x in [1, 2] %}{% with y = x %}{% if y == 2 %}{% break %}{% endif %}{{ y }}{% endwith %}{% endfor %}",
        "{% filter upper %}abc {{ name }}{% endfilter %}", "{% filter replace('a', 'b')|upper %}aac{% endfilter %}", "{% filter trim %}  x {% endfilter %}|", "{% filter indent(2) %}a\nb{% endfilter %}", "{% filter nosuch %}x{% endfilter %}", "{% block b %}x{{ n }}{% endblock %}", "{% block b %}x{% endblock b %}y", "{% set q = 1 %}{% block b %}{{ q }}{% endblock %}", "{% for i in [1] %}{% block b scoped %}{{ i }}{% endblock %}{% endfor %}", "{% for i in [1] %}{% block b %}{{ i }}{% endblock %}{% endfor %}",
        "{% print 1, 'a' %}", "{% print n %}", "a{% generation %}b{{ n }}{% endgeneration %}c", "é{% generation %}ü{% endgeneration %}{% for x in [1, 2] %}{% generation %}{{ x }}\n{% endgeneration %}\nz{% endfor %}", "{% generation %}{% endgeneration %}", "{%- generation -%} x {%- endgeneration -%} y", "{% generation %}{% set q = 1 %}{% endgeneration %}{{ q is defined }}", "{% if true %}{% generation %}a{% endgeneration %}{% endif %}b{% generation %}c{% endgeneration %}",
    ],
    "syntax errors": [
        "{{", "{{ 1", "{% if", "{% if x %}", "{% endif %}", "{{ }}", "{% %}", "{{ 1 2 }}", "{{ (1 }}", "{{ 1) }}", "{{ [1 }}", "{{ {1: } }}", "{{ 'a }}", "{{ a..b }}", "{{ a. }}", "{{ |upper }}", "{{ a| }}", "{{ a is }}", "{% for x %}{% endfor %}", "{% for in y %}{% endfor %}", "{% for x in %}{% endfor %}", "{% for x in y %}", "{% for x in y %}{% endif %}", "{% nosuch %}", "{% macro %}{% endmacro %}", "{% macro m %}{% endmacro %}", "{# x", "{% raw %}x",
        "{{ 1 + }}", "{{ * 1 }}", "{{ a b }}", "{{ not }}", "{{ 1 if }}", "{{ $ }}", "{{ a ? b }}", "{{ `a` }}", "{{ a & b }}", "{{ a := 1 }}", "{{ f(a=1, 2) }}", "{{ f(**a, b) }}", "{{ f(*a, *b) }}", "{{ a is b is c }}", "{{ 1 is odd is even }}", "{{ a[] }}", "{{ a[1, }}", "{% set %}", "{% set x %}", "{% block %}{% endblock %}", "{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}", "{% else %}", "{% elif 1 %}", "{% if 1 %}{% else %}{% else %}{% endif %}", "{% if 1 %}{% elif %}{% endif %}", "{{ 1; 2 }}", "{{ ! a }}", "{{ a == }}", "{{ a in }}", "{{ a not b }}", "{{ ',' , }}", "{{ \"\\x4\" }}", "{{ '\\u12' }}", "{% call %}{% endcall %}", "{% filter %}{% endfilter %}", "{% with 1 = 2 %}{% endwith %}", "{{ {1} }}", "{{ {'a'} }}", "{{ [,] }}", "{{ (,) }}", "{{ 1 if 2 else }}", "{{ a b.c }}", "{% for x in y recursive if z %}{% endfor %}", "{% generation %}", "{{ 1 }", "{{ 1 }}}}", "{% if 1 }}", "{{ x.'a' }}", "{% continue %}", "{{ f(a=1, a=2) }}", "{% end %}", "{% set x = 1 %}{% endset %}", "{{ 1.e5 }}", "{{ 1__0 }}", "{# ", "{% raw %} ", "a{#", "a{#-", "a {% raw %}", "a {%- raw -%}\n ", "{{ n +}}",
    ],
    "names": ["{{ é }}", "{% set été = 1 %}{{ été }}", "{{ _x }}", "{% set _x = 1 %}{{ _x }}", "{{ True }}{{ TRUE }}{{ None }}", "{{ self_x }}", "{% set if_ = 1 %}{{ if_ }}", "{{ range }}" if False else "{{ range is defined }}", "{% set range = 1 %}{{ range }}", "{{ dict is defined }}{{ lipsum is callable }}" if False else "{{ dict is defined }}", "{% set and_x = 2 %}{{ and_x }}", "{{ a1 is defined }}", "{% set dict = {'a': 1} %}{{ dict.a }}"],
    "helpers": ["{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}", "{% set j = joiner() %}{% for x in items %}{{ j() }}{{ x }}{% endfor %}", "{% set j = joiner('|') %}{{ j() }}{{ j() }}", "{{ strftime_now('%d %b %Y %H:%M:%S') }}", "{{ strftime_now('%Y-%m-%dT%H:%M:%S.%f%z %Z|%j %a %A %B %p %I %y %%') }}", "{{ strftime_now('') }}", "{{ strftime_now('é %e %-d') }}", "{{ strftime_now(1) }}", "{{ raise_exception('bad: ' ~ n) }}", "{% if n > 5 %}{{ raise_exception('x') }}{% endif %}fine", "{{ cycler() }}", "{{ dict(a=1).items()|list }}", "{{ namespace(**d).a }}"],
    "chat": [
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        "{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content']|trim + '\\n\\n' %}{% set messages = messages[1:] %}{% else %}{% set system_message = '' %}{% endif %}{{ bos_token + system_message }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content']|trim + '\\n\\n' }}{% elif message['role'] == 'assistant' %}{{ '### Response:\\n' + message['content']|trim + eos_token + '\\n\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}",
        "{%- for m in messages %}\n    {%- if m.role == 'assistant' %}\n        {%- generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}\n    {%- else %}\n        {{- '[' ~ m.role ~ ']' ~ m.content }}\n    {%- endif %}\n{%- endfor %}\n",
        "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join('\\n') }}", "{{ (messages|last).content }}{{ messages[-1].role == 'user' }}", "{%- set ns = namespace(last=-1) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}{{ ns.last }}",
        "{{ messages | tojson(indent=4) }}", "{% for m in messages[::-1] %}{{ m.content }}{% endfor %}", "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}", "{{ messages[0].content.split('!')[0].strip() }}", "{% if tools is defined and tools %}x{% else %}no tools{% endif %}", "{% if not add_generation_prompt is defined %}a{% endif %}{{ add_generation_prompt }}",
    ],
}

CHAT = {
    "messages": [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi — there."}, {"role": "user", "content": " Né "}],
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
}


def split_expressions(text):
    """Splits at `|` that stand between cases: outside of quotes and brackets, and not before a filter.

    A filter's bar is written without anything that tells it from a separator, so a part that begins with
    the name of a filter, alone or called, is joined to the case before it."""
    import jinja2.filters

    parts, current, quote, depth = [], "", None, 0
    text = text.strip("\n")
    at = 0
    while at < len(text):
        c = text[at]
        if quote:
            if c == "\\":
                current += text[at : at + 2]
                at += 2
                continue
            quote = None if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "|" and not depth:
            parts.append(current)
            current = ""
            at += 1
            continue
        current += c
        at += 1
    parts.append(current)
    names = set(jinja2.filters.FILTERS) | {"nosuch"}
    variables = set(V)
    cases = []
    for part in parts:
        word = part.lstrip()
        name = ""
        while word and (word[0].isalnum() or word[0] == "_"):
            name, word = name + word[0], word[1:]
        if cases and name in names and not (name in variables and not word.startswith("(")):
            cases[-1] += "|" + part
        else:
            cases.append(part)
    return cases


def cases():
    for subject, text in EXPRESSIONS.items():
        for number, expression in enumerate(split_expressions(text), 1):
            yield f"{subject} {number}", "{{ " + expression + " }}", "expressions"
    for subject, templates in TEMPLATES.items():
        for number, template in enumerate(templates, 1):
            yield f"{subject} {number}", template, "chat" if subject == "chat" else "expressions"
