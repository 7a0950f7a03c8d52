package features

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/specalign/specalign/align"
)

// maxNPYHeader bounds the header of an .npy file. NumPy writes 118 bytes for a matrix.
const maxNPYHeader = 1 << 16

var npyMagic = []byte("\x93NUMPY")

// npyHeader is what an .npy file says of its array.
type npyHeader struct {
	descr   string
	fortran bool
	shape   []uint64
}

// parseNPY reads an .npy file of two dimensions. The result views data.
func parseNPY(data []byte) (table, error) {
	h, body, err := splitNPY(data)
	if err != nil {
		return table{}, err
	}
	t, err := npyType(h.descr)
	if err != nil {
		return table{}, err
	}
	m, err := matrix(h.shape, t, body)
	m.byColumn = h.fortran
	return m, err
}

// splitNPY parses the header: magic, version, its length (2 bytes in version 1, else 4), a Python dictionary.
func splitNPY(data []byte) (h npyHeader, body []byte, err error) {
	const damaged = "the file is damaged, or not all of it was written"
	if !bytes.HasPrefix(data, npyMagic) {
		return h, nil, errors.New("it does not begin as an .npy file does; write it with numpy.save")
	}
	if len(data) < 12 {
		return h, nil, errors.New("it ends in its header; " + damaged)
	}
	var length, at uint64
	switch major, minor := data[6], data[7]; {
	case minor != 0 || major < 1 || major > 3:
		return h, nil, fmt.Errorf("it has version %d.%d of the format, but 1.0, 2.0 and 3.0 are known", major, minor)
	case major == 1:
		length, at = uint64(binary.LittleEndian.Uint16(data[8:])), 10
	default:
		length, at = uint64(binary.LittleEndian.Uint32(data[8:])), 12
	}
	if length > maxNPYHeader {
		return h, nil, fmt.Errorf("its header claims %d bytes, which no matrix needs; %s", length, damaged)
	}
	if uint64(len(data)) < at+length {
		return h, nil, errors.New("it ends in its header; " + damaged)
	}
	h, err = parseNPYHeader(string(data[at : at+length]))
	if err != nil {
		return h, nil, fmt.Errorf("its header cannot be read (%w); %s", err, damaged)
	}
	return h, data[at+length:], nil
}

// npyType understands the types that a matrix of features may have.
func npyType(descr string) (align.DType, error) {
	const convert = "; convert it with .astype('float32')"
	switch descr {
	case "<f2":
		return align.Float16, nil
	case "<f4":
		return align.Float32, nil
	case "<f8":
		return align.Float64, nil
	case ">f2", ">f4", ">f8":
		return 0, fmt.Errorf("its elements are big-endian (%s)%s", descr, convert)
	case "<V2", "|V2":
		return 0, errors.New("its elements have two bytes of no known type; bfloat16 cannot be told from an .npy file: use .safetensors, or convert them with .astype('float32')")
	case "|O":
		return 0, errors.New("its elements are Python objects, not numbers; save an array of float32")
	}
	return 0, fmt.Errorf("its elements have the type %q, but float16, float32 or float64 are needed%s", descr, convert)
}

// parseNPYHeader reads the dictionary {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }: these three keys,
// each once, in any order.
func parseNPYHeader(text string) (h npyHeader, err error) {
	p := pyParser{rest: text}
	seen := map[string]bool{}
	p.expect("{")
	for p.err == nil && !p.accept("}") {
		key := p.text()
		p.expect(":")
		if seen[key] {
			p.fail("two of " + strconv.Quote(key))
		}
		seen[key] = true
		switch key {
		case "descr":
			h.descr = p.descr()
		case "fortran_order":
			h.fortran = p.boolean()
		case "shape":
			h.shape = p.tuple()
		default:
			p.fail("unknown key " + strconv.Quote(key))
		}
		if !p.accept(",") {
			p.expect("}")
			break
		}
	}
	p.space()
	switch {
	case p.err != nil:
		return h, p.err
	case p.rest != "":
		return h, errors.New("something follows it")
	case len(seen) != 3:
		return h, errors.New("descr, fortran_order or shape is missing")
	}
	return h, nil
}

// pyParser reads the few Python literals of a header. After an error it reads nothing more.
type pyParser struct {
	rest string
	err  error
}

func (p *pyParser) fail(what string) {
	if p.err == nil {
		p.err = errors.New(what)
		p.rest = ""
	}
}

func (p *pyParser) space() { p.rest = strings.TrimLeft(p.rest, " \t\n\r") }

func (p *pyParser) accept(token string) bool {
	p.space()
	rest, ok := strings.CutPrefix(p.rest, token)
	p.rest = rest
	return ok
}

func (p *pyParser) expect(token string) {
	if !p.accept(token) {
		p.fail(strconv.Quote(token) + " is missing")
	}
}

// text reads a string without escapes.
func (p *pyParser) text() string {
	for _, quote := range []string{"'", `"`} {
		if p.accept(quote) {
			s, rest, ok := strings.Cut(p.rest, quote)
			if !ok || strings.ContainsAny(s, "\\\n") {
				p.fail("a string does not end")
				return ""
			}
			p.rest = rest
			return s
		}
	}
	p.fail("a string is missing")
	return ""
}

// descr reads a type: a string, or the list of a structured type, which is given back as it stands.
func (p *pyParser) descr() string {
	if p.space(); strings.HasPrefix(p.rest, "[") {
		end := strings.LastIndex(p.rest, "]")
		if end < 0 {
			p.fail("a list does not end")
			return ""
		}
		list := p.rest[:end+1]
		p.rest = p.rest[end+1:]
		return list
	}
	return p.text()
}

func (p *pyParser) boolean() bool {
	if p.accept("True") {
		return true
	}
	p.expect("False")
	return false
}

// tuple reads numbers of 0 or more. One number is written (3,).
func (p *pyParser) tuple() []uint64 {
	shape := []uint64{}
	p.expect("(")
	for p.err == nil && !p.accept(")") {
		end := strings.IndexFunc(p.rest, func(r rune) bool { return r < '0' || r > '9' })
		v, err := strconv.ParseUint(p.rest[:max(end, 0)], 10, 64)
		if err != nil || len(shape) == 64 {
			p.fail("the shape is no tuple of numbers")
			return nil
		}
		shape = append(shape, v)
		p.rest = p.rest[end:]
		if p.rest = strings.TrimPrefix(p.rest, "L"); !p.accept(",") { // Python 2 wrote longs as 3L
			p.expect(")")
			break
		}
	}
	return shape
}
