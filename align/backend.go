package align

import (
	"errors"
	"sync/atomic"
)

// Matrix is a row-major float32 matrix in the memory of one Backend. Element (i, j) is Data[i*Stride+j].
//
// Data of a host backend is ordinary memory. Data of a device backend holds a device address and must not be
// touched by Go code: it only carries the address and the extent.
type Matrix struct {
	Rows, Cols int
	Stride     int // elements between the starts of two rows, at least Cols
	Data       []float32
}

// Holds tells whether Data is as long as the shape says; a backend that hands pointers on refuses a matrix without.
func (m Matrix) Holds() bool {
	return m.Rows > 0 && m.Cols > 0 && m.Stride >= m.Cols && len(m.Data) >= m.Cols && (len(m.Data)-m.Cols)/m.Stride >= m.Rows-1
}

// Side describes how one embedding enters a kernel matrix.
type Side struct {
	Kernel Kernel  // KernelLinear: k = <x_i, x_j> (cosine arrives here as linear over normalised rows); KernelGaussian; KernelLaplacian
	X      Matrix  // (n, d) rows
	Sigma  float32 // bandwidth of KernelGaussian and KernelLaplacian
}

// Factors are two feature maps, row by row φ_i = scale_i x_i, that make L = (Φ1 Φ1ᵀ - eta Φ2 Φ2ᵀ) / n.
type Factors struct {
	X1, X2         Matrix // (n, d1) and (n, d2)
	Scale1, Scale2 Matrix // (1, n); 1 where there is no Data
	Eta            float32
}

// Info says what a backend runs on. It is reported with every result.
type Info struct {
	Backend string // "go", "cpu", "cuda"
	Device  string // "cpu", or "cuda:0" and the like
	ISA     string // "go", "portable", "avx2", "avx512", or the compute capability of a GPU
	Threads int    // threads that a large operation may use
	Host    bool   // Matrix.Data is ordinary memory
}

// Backend runs the operations of a step. Shapes are the caller's promise: they were checked where the data came in,
// and an implementation may return an error for a violated one but owes no more.
//
// A host backend is synchronous: outputs are valid when an operation returns, and Sync does nothing. A device backend
// only enqueues: outputs, scalars included, are valid after Sync. Scalars are therefore written to float64 memory of
// the backend instead of being returned. No operation allocates memory after the first call with a given shape. A
// Backend is not safe for concurrent use; outputs never alias inputs unless it is said.
//
// In the formulas n is the number of samples; sums over features are in float32 unless it is said.
type Backend interface {
	Info() Info
	Close() error

	// Alloc returns a zeroed (rows, cols) matrix whose rows start on 64-byte boundaries; Alloc64 zeroed scalars.
	// Free releases what Alloc returned.
	Alloc(rows, cols int) (Matrix, error)
	Alloc64(count int) ([]float64, error)
	Free(Matrix)
	Free64([]float64)
	// Wrap views host rows as a matrix without copying where the backend can (ok), for data that lives elsewhere,
	// such as in an arena.
	Wrap(rows, cols int, host []float32) (m Matrix, ok bool)
	// Widen converts rows in host memory of the given type to float32 in the backend's memory (also float32 to
	// float32: the upload of a device backend).
	Widen(dst Matrix, src []byte, t DType) error
	// Download copies a matrix to host memory, densely, (rows, cols) row-major.
	Download(dst []float32, src Matrix) error
	Download64(dst []float64, src []float64) error
	Sync() error

	// Scan computes sq (1, n), the squared norms of the rows of x (n, d), and out[0], the index of the first row
	// with a NaN, an Inf or a squared norm that overflows (-1 if none), out[1], the number of all-zero rows, and out[2],
	// the number of other rows whose squared norm is below 1e-30.
	Scan(x, sq Matrix, out []float64) error
	// Normalize computes phi_i = x_i * inv_i (n, d) with inv_i = 1/sqrt(sq_i), and inv_i = 0 where sq_i = 0.
	// inv is (1, n). Rows so small or large that sq leaves the normal range are rescaled first. Without Data in phi only
	// inv is written.
	Normalize(phi, inv, x, sq Matrix) error
	// CenterColumns subtracts from each column of phi (n, d) its mean, in place. mean is (1, d), written.
	CenterColumns(phi, mean Matrix) error
	// Fourier computes random features: phi (n, 2r) = [cos(x wᵀ), sin(x wᵀ)] / sqrt(r), x (n, d), w (r, d).
	Fourier(phi, x, w Matrix) error
	// StructuredFourier is Fourier with the first r rows and d columns of a matrix that is never formed: a block of p rows
	// is H D1 H D2 H D3, with Sylvester's Hadamard matrix H of order p, a power of 2 of at least d and at most MaxStructured.
	// diagonals (3 ⌈r/p⌉, p) has D1, D2 and D3 of each block as rows. phi is (n, 2r), x (n, d).
	StructuredFourier(phi, x, diagonals Matrix) error
	// Difference forms l (n, n) = (K1 - eta K2) / n, both triangles, and the kernel matrices k1 and k2 (n, n), not
	// divided by n, each where it has Data. Gaussian and Laplacian diagonals are exactly 1.
	Difference(l, k1, k2 Matrix, s1, s2 Side, eta float32) error
	// CrossKernel forms k (n, m), k_ij = k(a_i, b_j), between the rows of two matrices of one width, a.X (n, d) and
	// b.X (m, d). Kernel and bandwidth are a's.
	CrossKernel(k Matrix, a, b Side) error
	// CenterBoth replaces l (n, n), symmetric, by H l H, H = I - 11ᵀ/n, in place.
	CenterBoth(l Matrix) error

	// Product computes y_b = l v_b for each row b of v (b, n); l (n, n) symmetric; y (b, n).
	Product(y, l, v Matrix) error
	// FactorProduct computes, for each row b of v (b, n), t_b = [Φ1ᵀ v_b, Φ2ᵀ v_b] (b, d1+d2) and y_b = L v_b =
	// (Φ1 t1_b - eta Φ2 t2_b) / n (b, n).
	FactorProduct(y, t Matrix, f Factors, v Matrix) error
	// FactorAdvance computes, for each row b of t (b, d1+d2), y_b = (Φ1 t1_b - eta Φ2 t2_b) / n (b, n) and s_b = [Φ1ᵀ y_b,
	// Φ2ᵀ y_b] (b, d1+d2). With t = Φᵀ v that is y = L v and s = Φᵀ L v, for one pass over the rows.
	FactorAdvance(y, s Matrix, f Factors, t Matrix) error
	// Gram computes c (d1+d2, d1+d2) = [phi1 phi2]ᵀ [phi1 phi2] / n, both triangles.
	Gram(c, phi1, phi2 Matrix) error
	// Orthogonalize makes the first n columns of each row of w (b, >= n) orthogonal to those of the first m rows of basis
	// (>= m, as w), where these are orthonormal: one step of classical Gram-Schmidt with float64 sums, which subtracts
	// Σ_j c_j basis_j in all columns. It adds the coefficients c to h (b, m), and writes the squared norms of the first n
	// columns of the new rows to out (b).
	Orthogonalize(w, basis Matrix, m, n int, h, out []float64) error

	// SumSquares writes the sum of squares of l to out[0], summed in float64.
	SumSquares(l Matrix, out []float64) error
	// RelationalKL writes the value (1/n) Σ_i KL(softmax(k2_i/temperature) || softmax(k1_i/temperature)), diagonal
	// masked, to out[0], and where m has Data adds weight times its derivative with respect to k1, symmetrised
	// ((A + Aᵀ)/2), to m (n, n). k1 and k2 (n, n) may be overwritten.
	RelationalKL(m, k1, k2 Matrix, temperature, weight float32, out []float64) error
	// AddScaled computes m += a l, both (n, n).
	AddScaled(m, l Matrix, a float32) error
	// AddOuter computes m (n, n) += Σ_b w_b u_b u_bᵀ over the rows of u (b, n); w is (1, b).
	AddOuter(m, u, w Matrix) error

	// FactorGradient computes g (n, d) = Σ_b w_b u_b (u_bᵀ Φ), u (b, n), w (1, b): a derivative with respect to Φ = x (n,
	// d). Where scale (1, n) has Data and φ_i = scale_i x_i are unit rows, or zero with scale 0, it goes on to that with
	// respect to x: scale_i (g_i - φ_i <φ_i, g_i>).
	FactorGradient(g, x, scale, u, w Matrix) error
	// MatMul computes g (n, d) = alpha * a (n, m) phi (m, d).
	MatMul(g, a, phi Matrix, alpha float32) error
	// KernelGradient computes the gradient through an exact Gaussian or Laplacian kernel matrix: with M (n, n)
	// symmetric the derivative of the value with respect to K1,
	//
	//	gaussian:  g_a = 2 Σ_b M_ab k(x_a, x_b) (x_b - x_a) / σ²
	//	laplacian: g_a = 2 Σ_b M_ab k(x_a, x_b) sign(x_b - x_a) / σ
	//
	// M is m where m has Data (it may be overwritten), else Σ_b w_b u_b u_bᵀ. k1 is the kernel matrix where an
	// earlier Difference kept it, else it is formed again.
	KernelGradient(g Matrix, s Side, m, u, w, k1 Matrix) error
	// NormalizeBackward computes gx_i = inv_i (g_i - phi_i <phi_i, g_i>), the gradient through Normalize (n, d).
	// gx may be g.
	NormalizeBackward(gx, g, phi, inv Matrix) error
	// FourierBackward computes the gradient through Fourier: gx (n, d) = (phi_cos ∘ g_sin - phi_sin ∘ g_cos) w,
	// with phi (n, 2r) as Fourier wrote it, g (n, 2r), w (r, d). g may be overwritten.
	FourierBackward(gx, g, phi, w Matrix) error
	// StructuredFourierBackward is the gradient through StructuredFourier, g as in FourierBackward.
	StructuredFourierBackward(gx, g, phi, diagonals Matrix) error
}

// MaxStructured is the largest order of the Hadamard matrices of StructuredFourier.
const MaxStructured = 8192

// Spectrum is implemented by a backend that runs the whole eigen-iteration itself, so that a device need not wait for
// the host at each product.
type Spectrum interface {
	// Spectrum finds the extreme eigenpairs of l (n, n), or where l has no Data of the factor form: the k of largest
	// magnitude and the next one. values has at least k+1 entries, vectors is (>= min(k+1, n), n), start (1, n). tolerance
	// is of the estimated error of the gradient. out, 3 + k+1, gets the largest residual of the k, the number of products,
	// 1 where it converged, and, from a device, the measured residual of each pair.
	Spectrum(values []float64, vectors, l Matrix, f Factors, k int, tolerance float64, start Matrix, out []float64) error
}

// A DeviceError is a failure of the device, not of what it was asked. CUDA answers nothing more in a process then; another
// one may begin afresh.
type DeviceError struct {
	Device, Text string // Text: operation, kernel, and what CUDA says
}

func (e *DeviceError) Error() string { return "cuda: " + e.Device + ": " + e.Text }

// A DeviceMemoryError is a device without room for what was asked of it. It answers on.
type DeviceMemoryError struct {
	Device, Text string // as of a DeviceError
}

func (e *DeviceMemoryError) Error() string { return "cuda: " + e.Device + ": " + e.Text }

// Importer is implemented by a device that shares memory with another process: on the same GPU, or the host's.
type Importer interface {
	// UUID is the GPU's, as the driver writes it.
	UUID() string
	// Import opens memory of size bytes, and an event, by the handles of CUDA IPC, HandleSize bytes each.
	Import(memory, ready []byte, size uint64) (Imported, error)
	// Pin keeps host memory, whole pages, where it is, so that the GPU copies from and to it directly, until unpin is
	// called, which comes before the memory is unmapped and may come after Close.
	Pin(memory []byte) (unpin func(), err error)
}

// HandleSize is the length of a handle by which a device's memory or event is opened in another process.
const HandleSize = 64

// Imported is memory of another process. Its methods may be called beside the device's operations.
type Imported interface {
	// Bytes is the memory: a slice over a device address.
	Bytes() []byte
	// Ready tells whether all is done that the other process has marked by its event so far.
	Ready() (bool, error)
	// Close is called once; no operation may use the memory any more.
	Close()
}

// Combiner is implemented by a backend that computes a gradient from products that are there already.
type Combiner interface {
	// Combine computes g (n, d) = Σ_b w_b u_b t_bᵀ, u (b, n), t (b, d), w (1, b): FactorGradient without scale, where t is
	// u x.
	Combine(g, u, t, w Matrix) error
}

// Eigensolver is implemented by a backend with a dense eigensolver of its own.
type Eigensolver interface {
	// Eigen replaces a (n, n), symmetric, dense, in host memory, by its unit eigenvectors, one a row, and writes the
	// eigenvalues to values (n), rising. It reads the lower triangle. A NaN or Inf in it gives NaN everywhere. When stop,
	// which may be nil and which another goroutine may set, is not 0, it returns ErrStopped soon, a and values undefined.
	Eigen(values, a []float64, n int, stop *atomic.Int32) error
	// EigenSingle finds all eigenpairs of l (n, n), symmetric, of which it reads the lower triangle, by falling magnitude:
	// the eigenvalues, values (n), as Eigen does, the unit eigenvectors, the rows of v (n, n), in float32 and with its
	// accuracy. NaN, Inf and stop are as with Eigen. v may be l.
	EigenSingle(values []float64, v, l Matrix, stop *atomic.Int32) error
}

// ErrStopped is what Eigen and EigenSingle return when they were stopped.
var ErrStopped = errors.New("align: stopped")

// PowerRound says how far Device.Power goes.
type PowerRound struct {
	First      bool    // from the start vector and random ones; else the vectors go on
	Rows       int     // of the vectors that are iterated; the others are only made orthogonal to them
	Share      float64 // until the residual is at most that of |λ|
	Negligible float64 // or at most this
	Most       int     // products that each may spend in all rounds
}

// Device is a backend whose matrices are in the memory of a device. It iterates itself; what it does not do, Host does.
type Device interface {
	Backend
	Spectrum
	// Power runs the power method for the rows of vectors (b, n), b at least 2, and for their values (b), sorted by falling
	// magnitude. out, 3 + 2 b, gets how many of all but the last are unfinished, the number of products, 1 where all
	// residuals are negligible, the measured residuals, and what each pair has spent of r.Most, where the next round goes on.
	Power(values []float64, vectors, l Matrix, f Factors, r PowerRound, start Matrix, out []float64) error
	// Eigenpairs finds all eigenpairs of l (n, n), symmetric, in float64: values (n) and, a row each, vectors (n, n), in no
	// order. out, 2, gets 1 where that was to be had, and how many sweeps over the matrix it took.
	Eigenpairs(values []float64, vectors, l Matrix, out []float64) error
	// Clear sets m to 0, Copy dst, of the shape of src, to src.
	Clear(m Matrix) error
	Copy(dst, src Matrix) error
	// Fast says whether large products that are enqueued from here on may be in plain TF32, operands rounded to 11 bits
	// and sums in float32. What was recorded stays as it is.
	Fast(on bool)
	// CenterRows subtracts from each row of m its mean, in place.
	CenterRows(m Matrix) error
	// Differences writes the number of elements in which a and b, both of one shape, differ to out[0].
	Differences(a, b Matrix, out []float64) error
	// SubtractRow subtracts row (1, d) from each row of m (n, d), in place.
	SubtractRow(m, row Matrix) error
	// Accumulate adds scale times m to sum, rows x cols of m, row by row without gaps, in float64; first: it puts it there.
	Accumulate(sum []float64, m Matrix, scale float64, first bool) error
	// Load is Widen of rows that are in the device's memory; Fetch copies such rows as they are to host memory, densely,
	// and waits for them.
	Load(dst Matrix, f Features) error
	Fetch(dst []byte, f Features) error
	// After lets what is enqueued from here on wait for what is on another stream of the process now, Before the other
	// stream for what is enqueued here. A stream is given by its CUDA handle, the default one by 0.
	After(stream uintptr) error
	Before(stream uintptr) error
	// Host returns the backend for settings and batches that the device leaves to the CPU. Close closes it, too.
	Host() Backend
}

// HostOf returns a backend whose matrices are ordinary memory: b, or the one that a device leaves work to.
func HostOf(b Backend) Backend {
	if d, ok := b.(Device); ok {
		return d.Host()
	}
	return b
}
