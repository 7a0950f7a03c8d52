package report

import (
	"fmt"
	"image"
	_ "image/gif" // the formats that pictures may have
	_ "image/jpeg"
	_ "image/png"
	"math"
	"path/filepath"
	"strings"

	"golang.org/x/image/draw"

	_ "golang.org/x/image/bmp"
	_ "golang.org/x/image/tiff"
	_ "golang.org/x/image/webp"

	"github.com/specalign/specalign/align/features"
	"github.com/specalign/specalign/internal/regular"
)

// maxPixels bounds a picture before it is decoded: a small file can claim to be a very large one.
const maxPixels = 200e6

// Images are the pictures of n samples.
type Images struct {
	name  string
	paths []string         // of a list
	array *features.Images // of an .npy file
}

// OpenImages opens pictures: an .npy array of uint8, (n, h, w) or (n, h, w, 3), or else a text file with the path of one
// picture (PNG, JPEG, GIF, WebP, BMP, TIFF) on each line, relative to the list's folder. Pictures of a list are opened
// when they are needed, and only those.
func OpenImages(name string) (*Images, error) {
	m := &Images{name: name}
	var err error
	if strings.HasSuffix(name, ".npy") {
		m.array, err = features.OpenImages(name)
		return m, err
	}
	lines, err := regular.Lines(name, math.MaxInt)
	if err != nil {
		return nil, inputErrorf("report: %s: %w; it should be a list of paths, one a line", name, cause(err))
	}
	for _, path := range lines {
		if path != "" && !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(name), path)
		}
		m.paths = append(m.paths, path)
	}
	return m, nil
}

// Paths returns the files of a list of pictures.
func (m *Images) Paths() []string { return m.paths }

// Len returns the number of pictures; 0 for nil.
func (m *Images) Len() int {
	switch {
	case m == nil:
		return 0
	case m.array != nil:
		return m.array.N
	}
	return len(m.paths)
}

// Close releases the array. It is idempotent.
func (m *Images) Close() error {
	if m.array == nil {
		return nil
	}
	return m.array.Close()
}

// shrunk returns picture i on white, no side longer than edge pixels. It is not enlarged.
func (m *Images) shrunk(i, edge int) (*image.RGBA, error) {
	if m.array != nil {
		picture, err := m.element(i)
		if err != nil {
			return nil, inputErrorf("report: %s: %w", m.name, err)
		}
		return shrink(picture, edge), nil
	}
	path := m.paths[i]
	fail := func(err error) error {
		return inputErrorf("report: %s: row %d, the picture %s: %w", m.name, i, path, cause(err))
	}
	if path == "" {
		return nil, inputErrorf("report: %s: row %d is empty; it should be the path of a picture", m.name, i)
	}
	f, err := regular.Open(path)
	if err != nil {
		return nil, fail(err)
	}
	defer f.Close()
	size, _, err := image.DecodeConfig(f)
	if err == nil && (size.Width < 1 || size.Height < 1 || float64(size.Width)*float64(size.Height) > maxPixels) {
		err = fmt.Errorf("its size is %d x %d pixels, more than are read", size.Width, size.Height)
	}
	if err == nil {
		_, err = f.Seek(0, 0)
	}
	var picture image.Image
	if err == nil {
		picture, _, err = image.Decode(f)
	}
	if err != nil {
		return nil, fail(err)
	}
	return shrink(picture, edge), nil
}

// element returns picture i of the array.
func (m *Images) element(i int) (image.Image, error) {
	a := m.array
	data, err := a.Picture(i)
	if err != nil {
		return nil, err
	}
	area := image.Rect(0, 0, a.Width, a.Height)
	if a.Channels == 1 {
		return &image.Gray{Pix: data, Stride: a.Width, Rect: area}, nil
	}
	out := image.NewRGBA(area)
	for p := range a.Height * a.Width {
		copy(out.Pix[4*p:], data[3*p:3*p+3])
		out.Pix[4*p+3] = 0xff
	}
	return out, nil
}

// shrink draws a picture on white, no side longer than edge.
func shrink(picture image.Image, edge int) *image.RGBA {
	from := picture.Bounds()
	w, h := from.Dx(), from.Dy()
	if longest := max(w, h); longest > edge {
		w, h = max(1, (w*edge+longest/2)/longest), max(1, (h*edge+longest/2)/longest)
	}
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(out, out.Bounds(), image.White, image.Point{}, draw.Src)
	draw.CatmullRom.Scale(out, out.Bounds(), picture, from, draw.Over, nil)
	return out
}
