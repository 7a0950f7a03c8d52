package report

import (
	"bytes"
	"context"
	"encoding/base64"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"slices"

	"golang.org/x/image/draw"
)

// Edges of pictures in pixels, and what they may take, before base64 adds a third.
const (
	largestThumb  = 96 // of a group's samples
	largestCell   = 64 // of the map's
	smallestEdge  = 24
	thumbsBudget  = 1800e3 // bytes
	atlasBudget   = 1400e3
	jpegQuality   = 82
	atlasColumns  = 50
	shrinkDivisor = 4 // edges are tried at 3/4 of the one before
)

// pictures are the page's images as data URLs.
type pictures struct {
	thumbs map[int]thumb // by point, for the groups' samples
	edge   int           // no side of a thumb is longer
	atlas  *atlas
}

// thumb is one small picture.
type thumb struct {
	URL           string
	Width, Height int
}

// atlas has a cell for every point, row by row, in one picture: one file's header instead of thousands.
type atlas struct {
	URL     string `json:"url"`
	Cell    int    `json:"cell"` // edge of a cell in pixels
	Columns int    `json:"columns"`
}

// photograph makes the pictures of a selection, as large as the budgets allow.
func photograph(ctx context.Context, images *Images, s *selection) (*pictures, error) {
	shown := make(map[int]bool)
	for i, members := range s.members {
		for _, p := range slices.Concat(members, s.drawn[i][:min(len(s.drawn[i]), maxRandom)]) {
			shown[p] = true
		}
	}
	small := make([]*image.RGBA, len(s.points))
	for p, i := range s.points {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		edge := largestCell
		if shown[p] {
			edge = largestThumb
		}
		var err error
		if small[p], err = images.shrunk(i, edge); err != nil {
			return nil, err
		}
	}
	out := &pictures{}
	for edge := largestThumb; ; edge -= edge / shrinkDivisor {
		size := 0
		out.thumbs, out.edge = make(map[int]thumb, len(shown)), edge
		for p := range shown {
			picture := shrink(small[p], edge)
			url, err := dataURL(picture)
			if err != nil {
				return nil, err
			}
			size += len(url) * 3 / 4
			out.thumbs[p] = thumb{url, picture.Rect.Dx(), picture.Rect.Dy()}
		}
		if size <= thumbsBudget || edge <= smallestEdge {
			break
		}
	}
	for cell := largestCell; ; cell -= cell / shrinkDivisor {
		a, err := assemble(small, cell)
		if err != nil {
			return nil, err
		}
		out.atlas = a
		if len(a.URL)*3/4 <= atlasBudget || cell <= smallestEdge {
			return out, nil
		}
	}
}

// assemble puts pictures into cells; where all are smaller than a cell, cells are made as small as they.
func assemble(small []*image.RGBA, cell int) (*atlas, error) {
	largest := 1
	for _, picture := range small {
		largest = max(largest, picture.Rect.Dx(), picture.Rect.Dy())
	}
	cell = min(cell, largest)
	rows := (len(small) + atlasColumns - 1) / atlasColumns
	sheet := image.NewRGBA(image.Rect(0, 0, atlasColumns*cell, rows*cell))
	draw.Draw(sheet, sheet.Bounds(), image.White, image.Point{}, draw.Src)
	for p, picture := range small {
		picture = shrink(picture, cell)
		w, h := picture.Rect.Dx(), picture.Rect.Dy()
		at := image.Pt(p%atlasColumns*cell+(cell-w)/2, p/atlasColumns*cell+(cell-h)/2)
		draw.Draw(sheet, image.Rectangle{at, at.Add(image.Pt(w, h))}, picture, image.Point{}, draw.Src)
	}
	url, err := dataURL(sheet)
	return &atlas{URL: url, Cell: cell, Columns: atlasColumns}, err
}

// dataURL encodes a picture as JPEG or PNG, whichever is smaller.
func dataURL(picture *image.RGBA) (string, error) {
	var source image.Image = picture
	if g, ok := grey(picture); ok {
		source = g
	}
	var j, p bytes.Buffer
	if err := jpeg.Encode(&j, source, &jpeg.Options{Quality: jpegQuality}); err != nil {
		return "", err
	}
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&p, source); err != nil {
		return "", err
	}
	if p.Len() <= j.Len() {
		return "data:image/png;base64," + base64.StdEncoding.EncodeToString(p.Bytes()), nil
	}
	return "data:image/jpeg;base64," + base64.StdEncoding.EncodeToString(j.Bytes()), nil
}

// grey converts a picture that has no colours.
func grey(picture *image.RGBA) (*image.Gray, bool) {
	g := image.NewGray(picture.Rect)
	for i := 0; i < len(picture.Pix); i += 4 {
		r := picture.Pix[i]
		if picture.Pix[i+1] != r || picture.Pix[i+2] != r {
			return nil, false
		}
		x, y := i/4%g.Stride, i/4/g.Stride
		g.SetGray(x, y, color.Gray{Y: r})
	}
	return g, true
}
